"""The base of all sections."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

MIB: Final = 1 << 20


class Section(BaseModel):
    """Frozen; unknown keys are forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True)
