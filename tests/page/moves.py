"""What a visitor does: drops, pastes, asks."""

from __future__ import annotations

import base64
import mimetypes
from pathlib import Path
from typing import Any

_CARRY = """([files, kind]) => {
  const transfer = new DataTransfer();
  for (const { name, type, data } of files) {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  const target = document.querySelector("textarea");
  if (kind === "paste") {
    const about = { clipboardData: transfer, bubbles: true, cancelable: true };
    target.dispatchEvent(new ClipboardEvent("paste", about));
    return;
  }
  for (const name of ["dragover", "drop"]) {
    const about = { dataTransfer: transfer, bubbles: true, cancelable: true };
    target.dispatchEvent(new DragEvent(name, about));
  }
}"""


def carry(page: Any, kind: str, *files: tuple[str, bytes]) -> None:
    """Drop or paste files onto the page: (name, content)."""
    told = [
        {
            "name": name,
            "type": mimetypes.guess_type(name)[0] or "",
            "data": base64.b64encode(data).decode(),
        }
        for name, data in files
    ]
    page.evaluate(_CARRY, [told, kind])


def read(*paths: Path) -> list[tuple[str, bytes]]:
    """Files as carry() takes them."""
    return [(path.name, path.read_bytes()) for path in paths]


def ask(page: Any, text: str) -> Any:
    """Write a question and send it from the keyboard; its answer, whole."""
    before = page.locator(".answer").count()
    page.get_by_label("Question", exact=True).fill(text)
    page.keyboard.press("Enter")
    return answered(page, before)


def answered(page: Any, before: int = 0) -> Any:
    """The answer after so many others, once it is whole."""
    answer = page.locator(".answer").nth(before)
    page.locator(".answer.done").nth(before).wait_for()
    return answer
