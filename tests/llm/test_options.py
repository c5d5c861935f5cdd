"""Arguments of other engines become keys of the configuration, and no argument is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from epd.config import Config, load_config
from epd.errors import ConfigError
from epd.llm.options import KEYS, overrides, settings_of
from epd.llm.serving import argv


def config_of(**options: Any) -> Config:
    """What `epd serve` makes of them."""
    return load_config(None, overrides(settings_of(options)))


def test_the_arguments_that_everyone_uses() -> None:
    config = config_of(
        max_model_len=4096,
        limit_mm_per_prompt={"image": 2, "video": {"count": 1, "num_frames": 8}},
        dtype="half",
        max_num_seqs=8,
        enable_prefix_caching=False,
        served_model_name="m",
    )
    assert config.language.max_context == 4096
    assert (config.media.image.per_request, config.media.video.per_request) == (2, 1)
    assert config.dtype == "float16"
    assert config.language.max_running == 8
    assert not config.language.prefix_cache
    assert config.gateway.served_model_name == "m"


def test_media_settings_reach_the_configuration(tmp_path: Path) -> None:
    config = config_of(
        allowed_local_media_path=tmp_path,
        allowed_media_domains="a.org",
        media_io_kwargs={"video": {"num_frames": 4}},
        mm_processor_kwargs={"max_pixels": 1000},
        enable_mm_embeds=True,
    )
    assert config.media.allowed_local_path == tmp_path
    assert config.media.allowed_domains == ("a.org",)
    assert config.media.io_kwargs == {"video": {"num_frames": 4}}
    assert config.media.processor_kwargs == {"max_pixels": 1000}
    assert config.media.enable_embeds


def test_torchs_own_dtypes_are_words_too() -> None:
    assert config_of(dtype=torch.bfloat16).dtype == "bfloat16"


def test_a_model_may_have_several_names() -> None:
    config = config_of(served_model_name=["m", "other"], trust_remote_code=True)
    assert config.gateway.served_model_name == "m"
    assert config.gateway.other_model_names == ("other",)
    assert config.trust_remote_code


def test_what_is_none_is_not_said() -> None:
    assert settings_of(dict.fromkeys(KEYS)) == {}
    assert settings_of({"trust_remote_code": False}) == {}


def test_what_means_nothing_here_is_taken_where_it_changes_no_answer() -> None:
    assert settings_of({"tensor_parallel_size": 1, "enforce_eager": True}) == {}
    with pytest.raises(ConfigError, match="tensor_parallel_size=2 is not supported"):
        settings_of({"tensor_parallel_size": 2})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_modle_len": 1}, "unknown argument max_modle_len .did you mean max_model_len"),
        ({"limit_mm_per_prompt": {"smell": 1}}, "'smell' is none of image"),
        ({"limit_mm_per_prompt": 3}, "must map modalities"),
    ],
)
def test_unknown_arguments_are_refused_by_name(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        settings_of(options)


def test_a_value_that_no_configuration_can_say_is_refused() -> None:
    with pytest.raises(ConfigError, match="no value of a setting"):
        list(overrides({"language.kv_tokens": object()}))


def test_settings_go_behind_the_flags_so_that_they_win() -> None:
    found = argv(
        "/models/m",
        topology="EPD",
        host=None,
        port=0,
        config="c.yaml",
        settings={"dtype": "float32"},
    )
    assert found == [
        *("/models/m", "--topology", "EPD", "--port", "0", "--config", "c.yaml"),
        *("--set", 'dtype="float32"'),
    ]
