"""Files that stand in messages: what they are, and what a prompt has in their place."""

from __future__ import annotations

from epd.gateway.files.reader import FileReader, FilesWait

__all__ = ["FileReader", "FilesWait"]
