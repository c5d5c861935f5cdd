"""Prompts as they are written: special tokens are meant, placeholders are counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from epd.errors import BadRequest
from epd.prompt import Draft, ItemPart, PromptBuilder, Source
from epd.prompt.tokenizer import read_tokenizer
from epd.types import Modality
from tests.prompt.folders import SPECIALS, byte_fallback_bpe, write_every_modality, write_folder

PLACEHOLDERS = {"<|image_pad|>": Modality.IMAGE, "<|video_pad|>": Modality.VIDEO}
PIECE = st.one_of(
    st.sampled_from((*SPECIALS, "<think>", " ", "\n", "<|im_", "end|>", "\u00e9", "\U0001f600")),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
PROMPT = st.lists(PIECE, min_size=1, max_size=12).map("".join).filter(bool)
IMAGE = ItemPart(modality=Modality.IMAGE, source=Source.file(b"hello"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("raw")


@pytest.fixture(scope="module")
def builder(folder: Path) -> PromptBuilder:
    return PromptBuilder(write_every_modality(folder / "every"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path, builder: PromptBuilder) -> PreTrainedTokenizerFast:
    return read_tokenizer(folder / "every")


def items_for(text: str) -> list[tuple[str, ItemPart]]:
    """One for each placeholder, named by its number."""
    found = sorted(
        (place, modality)
        for token, modality in PLACEHOLDERS.items()
        for place in range(len(text))
        if text.startswith(token, place)
    )
    return [
        (f"items[{i}]", ItemPart(modality=modality, source=Source.file(b"x")))
        for i, (_, modality) in enumerate(found)
    ]


def facts(draft: Draft) -> list[tuple[Modality, str]]:
    return [(part.modality, part.where) for part in draft.parts]


@settings(max_examples=60)
@given(PROMPT)
def test_a_text_has_the_tokenizers_own_ids(
    builder: PromptBuilder, tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    """Special tokens that are written in it are special."""
    draft = builder.build_raw(text, items_for(text))
    assert builder.tokens_of(draft) == tokenizer(text).input_ids
    assert builder.tokens(text, add_special_tokens=True) == tokenizer(text).input_ids


@settings(max_examples=60)
@given(PROMPT)
def test_ids_are_read_as_the_text_that_they_say(
    builder: PromptBuilder, tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    ids = tokenizer(text).input_ids
    of_text, of_ids = (builder.build_raw(one, items_for(text)) for one in (text, ids))
    assert of_ids.text == of_text.text
    assert facts(of_ids) == facts(of_text)


def test_an_item_knows_the_text_before_it_in_either_form(builder: PromptBuilder) -> None:
    """Since the last special token: the item's own tokens may merge with it."""
    text = "no<|im_start|>Frame1: <|image_pad|>yes<|image_pad|>"
    items = [("items[0]", IMAGE), ("items[1]", IMAGE)]
    for prompt in (text, builder.tokens(text, add_special_tokens=False)):
        parts = builder.build_raw(prompt, items).parts
        assert [part.text_before for part in parts] == ["Frame1: ", "yes"]


@pytest.mark.parametrize(("text", "num"), [("<|image_pad|>", 0), ("a", 1), ("<|image_pad|>", 2)])
def test_placeholders_must_equal_the_items(builder: PromptBuilder, text: str, num: int) -> None:
    for prompt in (text, builder.tokens(text, add_special_tokens=False)):
        with pytest.raises(BadRequest, match="placeholders") as caught:
            builder.build_raw(prompt, [("items[0]", IMAGE)] * num)
        assert caught.value.param == "prompt"


@pytest.mark.parametrize("ids", [[-1], [10**6], []])
def test_ids_outside_the_vocabulary_are_refused(builder: PromptBuilder, ids: list[int]) -> None:
    with pytest.raises(BadRequest) as caught:
        builder.build_raw(ids)
    assert caught.value.param == "prompt"


def test_the_tokenizers_own_tokens_are_added_unless_told_otherwise(folder: Path) -> None:
    tokenizer = byte_fallback_bpe()
    tokenizer.add_tokens(list(PLACEHOLDERS))
    named = {"bos_token": "<s>"}
    builder = PromptBuilder(write_folder(folder / "llama", tokenizer=tokenizer, named=named))
    added = builder.tokens_of(builder.build_raw("ab"))
    assert added == tokenizer.encode("ab").ids
    assert added == [1, *builder.tokens_of(builder.build_raw("ab", add_special_tokens=False))]
    assert builder.text_of(added, "tokens").startswith("<s>")
