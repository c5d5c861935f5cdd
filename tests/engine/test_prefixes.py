"""Page hashes: the same for the tokens of an answer as for those of the next turn's prompt."""

from __future__ import annotations

import pytest

from epd.engine.kv.prefixes import PageHashes
from epd.prefix import prefix_of
from epd.types import Prompt
from tests.engine.test_embeddings import make_item

ROOT = b"root"
ITEM = make_item(0, token_ids=10, spans=((1, 4), (6, 9)))


@pytest.mark.parametrize("block_size", [16, 32, 48])
@pytest.mark.parametrize("before", [0, 3, 17, 30, 38, 90])
def test_answer_pages_are_found_by_the_next_turn(block_size: int, before: int) -> None:
    """The first turn ends `before` + 10 + 2 tokens in, with an item in its last tokens; 100 more
    are generated, and the second turn's prompt holds them all."""
    first = Prompt(text=((1,) * before, (2, 3)), items=(ITEM,))
    answer = tuple(range(100))
    second = Prompt(text=((1,) * before, (2, 3, *answer, 9, 9)), items=(ITEM,))
    ids = second.token_ids()
    hashes = PageHashes(prefix_of(first, ROOT), block_size=block_size)
    num = (first.num_tokens + 100) // block_size
    found = [hashes.page(page, lambda first, end: ids[first:end]) for page in range(num)]
    wanted = PageHashes(prefix_of(second, ROOT), block_size=block_size).leading(len(ids))
    assert found == wanted[:num] and num


def test_a_page_is_known_by_its_last_block() -> None:
    prefix = prefix_of(Prompt(text=(tuple(range(100)),)), ROOT)
    hashes = PageHashes(prefix, block_size=32)
    assert hashes.leading(100) == [prefix.blocks[1], prefix.blocks[3], prefix.blocks[5]]
    assert hashes.leading(95) == [prefix.blocks[1], prefix.blocks[3]]
    assert hashes.leading(31) == []
