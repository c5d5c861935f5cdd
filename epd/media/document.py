"""The text of PDF files, through pypdf, an extra."""

from __future__ import annotations

import io

from epd.config import DocumentLimits
from epd.errors import BadMedia, EpdError, TooLarge


def load_document(data: bytes, limits: DocumentLimits) -> str:
    """The text of its pages, an empty line between two. BadMedia and TooLarge say what is wrong."""
    try:
        return _text(data, limits)
    except (EpdError, MemoryError):
        raise
    except Exception as error:
        raise BadMedia("cannot be read as a PDF") from error


def _text(data: bytes, limits: DocumentLimits) -> str:
    from pypdf import PasswordType, PdfReader

    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and reader.decrypt("") is PasswordType.NOT_DECRYPTED:
        raise BadMedia("the PDF needs a password")
    if (num := len(reader.pages)) > limits.max_pages:
        raise TooLarge(f"the PDF has {num} pages, {limits.max_pages} are allowed")
    pages: list[str] = []
    left = limits.max_characters
    for page in reader.pages:
        text = page.extract_text().strip()
        left -= len(text) + 2
        if left < 0:
            raise TooLarge(f"the PDF has more than {limits.max_characters} characters")
        if text:
            pages.append(text)
    if not pages:
        raise BadMedia("the PDF holds no text: send its pages as pictures")
    return "\n\n".join(pages).encode(errors="replace").decode()
