"""Where a configuration comes from, and what is said when it cannot be one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epd.config import Config, dump_config, load_config
from epd.errors import ConfigError
from epd.types import Modality

FOUND = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
BY_HAND = sorted((Path(__file__).parents[2] / "launch" / "local").glob("*.yaml"))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_nothing_given_is_the_defaults() -> None:
    assert load_config() == Config()


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, "# nothing\n")) == Config()


def test_overrides_win_over_the_file_and_the_last_one_over_the_others(tmp_path: Path) -> None:
    path = written(tmp_path, "dtype: float16\ngateway: {port: 1, host: h}\n")
    config = load_config(path, ["gateway.port=2", "gateway.port=3", "dtype=float32"])
    assert (config.gateway.port, config.gateway.host, config.dtype) == (3, "h", "float32")


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("language.kv_tokens=65536", lambda c: c.language.kv_tokens, 65536),
        ("language.kv_tokens=null", lambda c: c.language.kv_tokens, None),
        (
            "encode.modalities=[image, video]",
            lambda c: c.encode.modalities,
            (Modality.IMAGE, Modality.VIDEO),
        ),
        ("media.allow_private_addresses=true", lambda c: c.media.allow_private_addresses, True),
        ("wire.heartbeat_s=0.25", lambda c: c.wire.heartbeat_s, 0.25),
        ("wire.curve_dir=/keys", lambda c: c.wire.curve_dir, Path("/keys")),
        ("model=a=b", lambda c: c.model, "a=b"),
    ],
)
def test_an_override_has_a_yaml_value(override: str, read, value) -> None:  # type: ignore[no-untyped-def]
    assert read(load_config(overrides=[override])) == value


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("gateway.prot=1", "--set gateway.prot=1: gateway.prot: unknown key (did you mean port?)"),
        ("zzz=1", "--set zzz=1: zzz: unknown key"),
        ("gateway.port=many", "--set gateway.port=many: gateway.port: Input should be a valid int"),
        ("gateway.port=70000", "gateway.port: Input should be less than or equal to 65535"),
        ("gateway=5", "--set gateway=5: gateway: "),
        ("dtype.x=5", "--set dtype.x=5: dtype: "),
        ("port", "--set port: expected key=value"),
        ("=1", "--set =1: expected key=value"),
        ("gateway..port=1", "expected key=value"),
        ("encode.modalities=[", "--set encode.modalities=[: the value is not valid YAML"),
        ("topology=3X", "--set topology=3X: topology: topology '3X' is not NENPND"),
        ("encode.modalities=[smell]", "encode.modalities.0: Input should be 'image'"),
    ],
)
def test_a_wrong_override_is_named_with_its_key(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gateway: {port: x}\n", ": gateway.port: Input should be a valid integer"),
        ("colour: red\n", ": colour: unknown key"),
        ("dtype: float32\ndtype: bfloat16\n", "key 'dtype' is there twice"),
        ("[1, 2]\n", "holds no mapping of keys to values"),
        ("1: 2\n", "holds no mapping of keys to values"),
        ("a: [\n", "is not valid YAML"),
        ("? [a]\n: 1\n", "is not valid YAML"),
        ("!!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_every_error_is_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "gateway: {port: x}\nthreads: 0\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("key", ["gateway.max_body_bytes", "wire.chunk_bytes"])
def test_what_is_larger_than_a_message_may_be_is_refused_at_the_start(key: str) -> None:
    """Not when the first such item comes, with the request half dispatched."""
    assert load_config(None, [f"{key}=67108864"])
    with pytest.raises(ConfigError, match=f"{key} is 67108865: wire.max_message_bytes allows"):
        load_config(None, [f"{key}=67108865"])
    assert load_config(None, [f"{key}=67108865", "wire.max_message_bytes=67108865"])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*none\.yaml"):
        load_config(tmp_path / "none.yaml")


def test_a_section_left_empty_can_be_set(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "gateway:\n"), ["gateway.port=1"])
    assert config.gateway.port == 1


@settings(max_examples=40)
@given(
    st.builds(
        Config,
        model=st.text(),
        name=st.text(),
        threads=st.none() | st.integers(1, 99),
        topology=st.sampled_from(["EPD", "1E1PD", "3E2P1D"]),
        gateways=st.lists(st.text()).map(tuple),
    )
)
def test_what_is_dumped_loads_as_an_equal_configuration(config: Config) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dumped.yaml"
        path.write_text(dump_config(config), encoding="utf-8")
        assert load_config(path) == config


@pytest.mark.parametrize(
    "path", FOUND + BY_HAND, ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_every_file_that_we_ship_is_valid(path: Path) -> None:
    assert isinstance(load_config(path), Config)


def test_there_is_a_file_for_every_shape_of_topology() -> None:
    shapes = {path.stem: path for path in FOUND if "-" not in path.stem}
    assert set(shapes) >= {"1E1P1D", "1E1PD", "EPD"}
    for topology, path in shapes.items():
        assert load_config(path).topology == topology
