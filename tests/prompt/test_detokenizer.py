"""Text while it is generated."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from epd.prompt import Detokenizer
from tests.prompt.folders import byte_fallback_bpe, byte_level_bpe

TOKENIZERS = {"byte level": byte_level_bpe(), "byte fallback": byte_fallback_bpe()}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    st.sampled_from("a \n\u00e9\u4e16\U0001f468\u200d\U0001f469\U0001f600"), max_size=20
)


@pytest.fixture(params=list(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]


@settings(max_examples=300)
@given(text=TEXT, name=st.sampled_from(list(TOKENIZERS)))
def test_pieces_join_to_what_the_tokenizer_decodes(text: str, name: str) -> None:
    """Emoji and other long characters included, with never half of one on the way."""
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    expected = tokenizer.decode(ids)
    detokenizer = Detokenizer(tokenizer)
    shown = ""
    for token_id in ids:
        shown += detokenizer.add([token_id])
        assert expected.startswith(shown)
    assert shown + detokenizer.finish() == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 430)))
def test_any_ids_give_text_and_lose_nothing(ids: list[int]) -> None:
    """A model may generate bytes that are no character; they show as the replacement character."""
    tokenizer = TOKENIZERS["byte level"]
    detokenizer = Detokenizer(tokenizer)
    shown = "".join(detokenizer.add([i]) for i in ids) + detokenizer.finish()
    assert shown.replace("\ufffd", "") == tokenizer.decode(ids).replace("\ufffd", "")
    assert detokenizer.num_tokens == len(ids)


def test_half_a_character_waits_for_its_other_bytes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("\U0001f600", add_special_tokens=False).ids[-4:]
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.add([i]) for i in ids[:3]] == ["", "", ""]
    assert detokenizer.add(ids[3:]).endswith("\U0001f600")


def test_half_a_character_at_the_end_is_shown_as_broken() -> None:
    tokenizer = TOKENIZERS["byte level"]
    detokenizer = Detokenizer(tokenizer)
    assert detokenizer.add(tokenizer.encode("\U0001f600").ids[:2]) == ""
    assert detokenizer.finish() == "\ufffd"


def test_special_tokens_are_not_shown_and_cost_no_space() -> None:
    """The decoder drops a leading space; a special token in between must not make one leading."""
    tokenizer = TOKENIZERS["byte fallback"]
    first, second = (tokenizer.encode(t, add_special_tokens=False).ids for t in ("a b", "c"))
    detokenizer = Detokenizer(tokenizer)
    assert detokenizer.add([*first, 2, 1, *second]) == "a b c"


def test_special_tokens_are_shown_to_those_who_ask() -> None:
    tokenizer = TOKENIZERS["byte level"]
    ids = tokenizer.encode("a<|im_end|>b").ids
    assert Detokenizer(tokenizer, shows_special=True).add(ids) == "a<|im_end|>b"
    assert Detokenizer(tokenizer).add(ids) == "ab"


def test_plain_added_tokens_are_shown() -> None:
    tokenizer = TOKENIZERS["byte level"]
    assert Detokenizer(tokenizer).add(tokenizer.encode("<think>x").ids) == "<think>x"


def test_a_stop_string_ends_the_text_and_the_count() -> None:
    """It may lie across tokens; ids after the one that completed it do not count."""
    tokenizer = TOKENIZERS["byte level"]
    ids = tokenizer.encode("zzqqxx!!").ids
    assert len(ids) == 8
    detokenizer = Detokenizer(tokenizer, stops=["qx"])
    assert detokenizer.add(ids[:4]) == "zzq"
    assert detokenizer.add(ids[4:]) == "" and detokenizer.finish() == ""
    assert detokenizer.stopped and detokenizer.num_tokens == 5


def test_a_stop_string_may_be_shown() -> None:
    tokenizer = TOKENIZERS["byte level"]
    detokenizer = Detokenizer(tokenizer, stops=["qx"], shows_stop=True)
    assert detokenizer.add(tokenizer.encode("zzqqxx!!").ids) == "zzqqx"
    assert detokenizer.finish() == "" and detokenizer.num_tokens == 5


@pytest.mark.parametrize("cut", range(9))
def test_a_stop_string_counts_after_the_first_tokens_only(cut: int) -> None:
    """However the tokens come; one that begins among the first ones is none."""
    tokenizer = TOKENIZERS["byte level"]
    ids = tokenizer.encode("zqzqzqzq").ids
    assert len(ids) == 8
    detokenizer = Detokenizer(tokenizer, stops=["zq"], min_tokens=3)
    assert detokenizer.add(ids[:cut]) + detokenizer.add(ids[cut:]) == "zqzq"
    assert detokenizer.stopped and detokenizer.num_tokens == 6
