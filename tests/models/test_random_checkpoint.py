"""The random checkpoint has all that a published one has, and is the same every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from epd.models.fingerprint import stored_dtype
from epd.models.random_checkpoint import HALF_BILLION, Sizes, build_random_checkpoint
from epd.models.random_tokenizer import PLAIN_TOKENS, SPECIAL_TOKENS, build_tokenizer
from epd.models.spec import read_checkpoint
from epd.models.torchvision_shim import prepare_torchvision
from tests.checkpoints import build
from tests.models.pictures import messages, pictures
from tests.programs import said
from tests.reference import Reference


def test_built_twice_it_is_the_same(path: Path, family: str, tmp_path: Path) -> None:
    again = build(family, tmp_path)
    files = {file.name for file in path.iterdir()}
    assert files == {file.name for file in again.iterdir()}
    assert all((path / name).read_bytes() == (again / name).read_bytes() for name in files)


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is: qwen2_5_vl, qwen3_vl"):
        build_random_checkpoint(tmp_path, family="other")


def test_generation_defaults_are_worth_testing(path: Path) -> None:
    defaults = json.loads((path / "generation_config.json").read_text())
    assert defaults["do_sample"] and len(defaults["eos_token_id"]) == 2
    assert defaults["repetition_penalty"] == 1.05 and defaults["top_k"] == 20


def test_template_adds_a_system_turn_only_where_there_is_none(reference: Reference) -> None:
    user = {"role": "user", "content": "hello"}
    alone = reference.render([user])
    assert alone.startswith("<|im_start|>system\n") and alone.count("<|im_start|>") == 3
    led = reference.render([{"role": "system", "content": "Be brief."}, user])
    assert led == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_template_knows_a_picture_by_type_and_by_key(reference: Reference) -> None:
    parts = [{"type": "image"}, {"type": "image_url", "image_url": {"url": ""}}, {"image": "x"}]
    text = reference.processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": [*parts, {"type": "text", "text": "?"}]}],
        tokenize=False,
        add_vision_id=True,
    )
    pad = "<|vision_start|><|image_pad|><|vision_end|>"
    assert f"Picture 1: {pad}Picture 2: {pad}Picture 3: {pad}?<|im_end|>\n" in text


def test_answers_depend_on_the_pictures(reference: Reference) -> None:
    images = pictures(3)
    answers = {tuple(reference.generate(messages(1), [image], max_tokens=8)[1]) for image in images}
    assert len(answers) == 3


def test_repetition_penalty_of_the_checkpoint_matters(reference: Reference) -> None:
    """Else a test of that default would pass without it."""
    asked = [(messages(num), pictures(num), 24) for num in range(3)]
    told = [reference.generate(*one)[1] for one in asked]
    free = [reference.generate(*one, repetition_penalty=1.0)[1] for one in asked]
    assert told != free


def test_the_command_builds_any_family(family: str, tmp_path: Path) -> None:
    """Its size "tiny"; the larger one takes the same way, and longer."""
    argv = [str(tmp_path / "made"), "--family", family]
    assert said(argv, module="epd.models.random_checkpoint").returncode == 0
    assert read_checkpoint(tmp_path / "made").spec.name == family


def test_weights_are_stored_in_the_dtype_of_the_sizes(family: str, tmp_path: Path) -> None:
    build_random_checkpoint(tmp_path, family=family, sizes=Sizes(dtype="bfloat16"))
    assert read_checkpoint(tmp_path).dtype == stored_dtype(tmp_path) == "bfloat16"


def test_half_a_billion_is_the_shape_that_is_meant() -> None:
    """The language half: two matrices per projection pair, a tied head, no pictures."""
    sizes = HALF_BILLION
    keys = sizes.hidden // sizes.heads * sizes.kv_heads
    attention = sizes.hidden * (2 * sizes.hidden + 2 * keys)
    layer = attention + 3 * sizes.hidden * sizes.intermediate
    total = sizes.layers * layer + sizes.vocab * sizes.hidden
    assert sizes.tied and 0.49e9 < total < 0.5e9
    assert sizes.known_tokens + len(SPECIAL_TOKENS) + len(PLAIN_TOKENS) <= sizes.vocab


def test_a_filler_can_be_shown_and_no_text_becomes_one() -> None:
    """Else most of what a random model with a large vocabulary says would be invisible."""
    prepare_torchvision()
    tokenizer = build_tokenizer(trained=300, known=400, max_context=64, template="")
    assert tokenizer.decode([350]) == " w350"
    text = tokenizer.decode(range(300, 400))
    assert max(tokenizer(text).input_ids) < 300
