"""Content keys."""

from __future__ import annotations

from epd.media import content_key


def test_equal_parts_give_equal_keys_and_any_difference_another() -> None:
    """Also a boundary moved between parts."""
    keys = [
        content_key(b"ab", "c"),
        content_key(b"a", "bc"),
        content_key(b"abc"),
        content_key(b"ab", "c", ""),
        content_key(b"", "ab", "c"),
    ]
    assert len(set(keys)) == len(keys)
    assert content_key(b"ab", "c") == keys[0]
    assert len(keys[0]) == 32
