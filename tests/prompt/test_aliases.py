"""Names of special tokens that nobody outside can write."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from epd.errors import BadRequest
from epd.prompt.aliases import Aliases
from tests.prompt.folders import byte_level_bpe


def words(*vocab: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocab)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def test_text_that_the_vocabulary_itself_maps_to_a_special_token_is_refused() -> None:
    """Not the added tokens but the model would make "<pad>" of it: there is no plain spelling."""
    tokenizer = words("[UNK]", "a", "<pad>")
    tokenizer.add_special_tokens([AddedToken("<pad>", special=True)])
    aliases = Aliases(tokenizer)
    assert aliases.encode("a" + aliases.alias_of("<pad>")) == [1, 2]
    with pytest.raises(BadRequest, match="<pad>"):
        aliases.encode("a <pad>")


def test_ids_are_the_tokenizers_own_where_the_twin_numbers_differently() -> None:
    """A special inside the vocabulary moves to the twin's end and shifts those after it."""
    tokenizer = words("[UNK]", "<s>", "a")
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("<e>", special=True)])
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    aliases = Aliases(tokenizer)
    text = aliases.hide("<s>a<tool><e>")
    assert aliases.encode(text) == tokenizer.encode("<s>a<tool><e>").ids == [1, 2, 4, 3]
    assert aliases.show(text) == "<s>a<tool><e>"


def test_flags_of_a_token_stay() -> None:
    """A token that swallows the space after it does so under its alias too."""
    tokenizer = byte_level_bpe()
    tokenizer.add_special_tokens([AddedToken("<|user|>", special=True, rstrip=True)])
    aliases = Aliases(tokenizer)
    for text in ("<|user|>  \n hi", "x <|im_end|> \n<|user|>hi"):
        assert aliases.encode(aliases.hide(text)) == tokenizer.encode(text).ids


def test_names_change_with_every_process() -> None:
    """Nothing that was once seen is of use later."""
    tokenizer = byte_level_bpe()
    first, second = Aliases(tokenizer), Aliases(tokenizer)
    assert first.alias_of("<|im_end|>") != second.alias_of("<|im_end|>")
    assert list(second.find(first.alias_of("<|im_end|>"))) == []
