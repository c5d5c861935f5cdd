"""The dtypes that may travel. Anything else is refused by name, on both sides."""

from __future__ import annotations

from typing import Final

import torch

from epd.errors import ProtocolError

_BY_NAME: Final[dict[str, torch.dtype]] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_NAMES: Final = {dtype: name for name, dtype in _BY_NAME.items()}


def dtype_of(name: str) -> torch.dtype:
    """ProtocolError for a name that does not travel."""
    found = _BY_NAME.get(name)
    if found is None:
        raise ProtocolError("payload", f"dtype {name!r} does not travel")
    return found


def name_of(dtype: torch.dtype) -> str:
    """The wire's name of a dtype. ProtocolError for one that does not travel: our own fault."""
    found = _NAMES.get(dtype)
    if found is None:
        raise ProtocolError("payload", f"{dtype} does not travel")
    return found
