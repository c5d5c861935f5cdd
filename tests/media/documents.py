"""PDFs as files, written by hand: one line of text to a page."""

from __future__ import annotations


def pdf(*pages: str) -> bytes:
    """A PDF with a font that every reader has. Text in Latin letters, without brackets."""
    numbers = range(len(pages))
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in numbers)
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i in numbers:
        stream = f"BT /F1 12 Tf 72 720 Td ({pages[i]}) Tj ET"
        font = "/Resources << /Font << /F1 3 0 R >> >>"
        paper = "/MediaBox [0 0 612 792]"
        objects += [
            f"<< /Type /Page /Parent 2 0 R {font} {paper} /Contents {5 + 2 * i} 0 R >>",
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    data, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{one}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    end = f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(data)}\n%%EOF\n"
    return data + f"xref\n0 {size}\n0000000000 65535 f \n{table}{end}".encode()
