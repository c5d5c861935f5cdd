"""Equal hashes exactly where KV is equal."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from epd.prefix import PREFIX_TOKENS, next_hash, prefix_of, prefix_root
from epd.types import ItemKey, ItemLayout, Modality, Prompt, PromptItem

ROOT = prefix_root({"weights": "w"}, "")


def picture(num_rows: int, key: bytes = b"key", positions: bytes = b"8x8") -> ItemLayout:
    return ItemLayout(
        modality=Modality.IMAGE,
        token_ids=(9,) * num_rows,
        row_spans=((0, num_rows),),
        width=4,
        dtype="float32",
        content_key=key,
        positions=positions,
    )


def prompt_with(before: int, layout: ItemLayout, after: int) -> Prompt:
    item = PromptItem(item=ItemKey("r", 0, 1), encoder="e", layout=layout)
    return Prompt(text=((1,) * before, (2,) * after), items=(item,))


def text(*token_ids: int) -> Prompt:
    return Prompt(text=(token_ids,))


def test_only_whole_blocks_have_hashes() -> None:
    assert len(prefix_of(text(*range(PREFIX_TOKENS - 1)), ROOT).blocks) == 0
    assert len(prefix_of(text(*range(PREFIX_TOKENS * 2 + 1)), ROOT).blocks) == 2


@given(st.integers(0, 63), st.integers(0, 63))
def test_blocks_agree_up_to_the_first_difference(at: int, length: int) -> None:
    one = list(range(64))
    other = [*one[:at], 1000, *one[at + 1 : at + 1 + length]]
    first, second = prefix_of(text(*one), ROOT).blocks, prefix_of(text(*other), ROOT).blocks
    equal = [a == b for a, b in zip(first, second, strict=False)]
    assert equal == [(k + 1) * PREFIX_TOKENS <= at for k in range(len(equal))]


def test_salts_and_checkpoints_share_nothing() -> None:
    roots = {
        prefix_root({"weights": "w"}, ""),
        prefix_root({"weights": "w"}, "tenant"),
        prefix_root({"weights": "v"}, ""),
        prefix_root({"weights": "w", "x": ""}, ""),
    }
    assert len({prefix_of(text(*range(16)), root).blocks for root in roots}) == 4


def test_another_picture_with_the_same_ids_has_another_hash() -> None:
    same = prefix_of(prompt_with(8, picture(40), 8), ROOT)
    assert same == prefix_of(prompt_with(8, picture(40), 8), ROOT)
    for other in (picture(40, key=b"kez"), picture(40, positions=b"4x16")):
        found = prefix_of(prompt_with(8, other, 8), ROOT)
        assert not set(found.blocks) & set(same.blocks)


def test_a_picture_that_begins_elsewhere_in_the_block_has_another_hash() -> None:
    """Ids alone could be equal: a generated placeholder id is not a row."""
    one = prefix_of(prompt_with(0, picture(16), 0), ROOT)
    ids_alone = prefix_of(text(*(9,) * 16), ROOT)
    assert one.blocks != ids_alone.blocks


def test_generated_tokens_extend_the_chain() -> None:
    """What decode hashes step by step is what a later prompt of the same tokens hashes at once."""
    layout = picture(20)
    begun = prefix_of(prompt_with(4, layout, 2), ROOT)  # 26 tokens: one block and a tail
    ids = prompt_with(4, layout, 2).token_ids()[PREFIX_TOKENS:] + [3] * 6
    extended = next_hash(begun.blocks[-1], ids, begun.tail)
    whole = prompt_with(4, layout, 2)
    longer = replace(whole, text=(whole.text[0], (*whole.text[1], *[3] * 6)))
    assert prefix_of(longer, ROOT).blocks == (*begun.blocks, extended)
