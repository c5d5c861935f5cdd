"""Where an item is, or what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from epd.types import ItemForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Exactly one of `url` (http, https or file) and `data` is set.

    `data` is all pieces, one behind the other; `pieces` has (name, bytes) of each.
    """

    url: str | None = None
    data: bytes | None = field(default=None, repr=False)
    form: ItemForm = ItemForm.FILE
    pieces: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, pieces: Sequence[tuple[str, bytes]], form: ItemForm) -> Source:
        """Inline bytes by name."""
        return cls(
            data=b"".join(data for _, data in pieces) if len(pieces) != 1 else pieces[0][1],
            form=form,
            pieces=tuple((name, len(data)) for name, data in pieces),
        )

    @classmethod
    def file(cls, data: bytes) -> Source:
        """One inline file."""
        return cls.of([("file", data)], ItemForm.FILE)

    @property
    def num_bytes(self) -> int:
        """Inline bytes."""
        return len(self.data or b"")
