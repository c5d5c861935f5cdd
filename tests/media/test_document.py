"""The text of PDFs, in a decoder process: within bounds, and with a reason where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from epd.config import DocumentLimits, MediaConfig
from epd.errors import BadMedia, TooLarge
from epd.media.decoders import Decoders
from epd.media.document import load_document
from tests.media.documents import pdf

LIMITS = DocumentLimits()


def test_pages_come_in_order_and_empty_ones_are_left_out() -> None:
    assert load_document(pdf("one", "", "two words"), LIMITS) == "one\n\ntwo words"


@pytest.mark.parametrize(
    ("data", "limits", "said"),
    [
        (pdf("a", "b", "c"), DocumentLimits(max_pages=2), "has 3 pages, 2 are allowed"),
        (pdf("a" * 30), DocumentLimits(max_characters=20), "more than 20 characters"),
    ],
)
def test_one_that_is_too_long_is_refused(data: bytes, limits: DocumentLimits, said: str) -> None:
    with pytest.raises(TooLarge, match=said):
        load_document(data, limits)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pdf("", ""), "holds no text"),
        (b"%PDF-1.1\n", "cannot be read"),
        (b"%PDF-1.4\n" + b"\xff" * 300, "cannot be read"),
        (pdf("text").replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]"), "cannot be read|holds no text"),
    ],
)
def test_one_without_text_or_sense_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(BadMedia, match=said):
        load_document(data, LIMITS)


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    found = Decoders(1, MediaConfig())
    yield found
    found.close()


def test_a_decoder_process_reads_them(decoders: Decoders) -> None:
    """One that cannot be read costs no process."""
    before = decoders.pids
    assert decoders.document(pdf("one", "two")) == "one\n\ntwo"
    with pytest.raises(BadMedia, match="cannot be read"):
        decoders.document(pdf("one")[:100])
    assert decoders.document(pdf("\\344\\366")) == "\xe4\xf6"
    assert decoders.pids == before
