"""Single tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epd.prompt import TokenTexts
from tests.prompt.folders import byte_fallback_bpe, byte_level_bpe

TOKENIZERS = {"byte level": byte_level_bpe(), "byte fallback": byte_fallback_bpe()}
TEXTS = {name: TokenTexts(tokenizer) for name, tokenizer in TOKENIZERS.items()}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_the_bytes_of_byte_level_tokens_join_to_the_texts(text: str) -> None:
    tokenizer = TOKENIZERS["byte level"]
    ids = tokenizer.encode(text).ids
    joined = b"".join(bytes(TEXTS["byte level"].bytes(token) or ()) for token in ids)
    assert joined == tokenizer.decode(ids, skip_special_tokens=False).encode()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_half_a_character_has_its_bytes(name: str) -> None:
    ids = TOKENIZERS[name].encode("\U0001f600").ids[-4:]
    assert [TEXTS[name].bytes(token) for token in ids] == [(0xF0,), (0x9F,), (0x98,), (0x80,)]
    assert TEXTS[name].text(ids[0]) == "\ufffd"


def test_special_tokens_are_shown_and_unknown_ids_are_nothing() -> None:
    texts = TEXTS["byte level"]
    special = TOKENIZERS["byte level"].token_to_id("<|im_end|>")
    assert (texts.text(special), texts.bytes(special)) == ("<|im_end|>", tuple(b"<|im_end|>"))
    assert (texts.text(10**6), texts.bytes(10**6)) == ("", ())
