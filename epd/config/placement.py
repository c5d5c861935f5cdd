"""Which devices the workers of each role use, and how many ranks one of them has."""

from __future__ import annotations

import re
from typing import Final

from pydantic import Field, field_validator, model_validator

from epd.config.section import Section

_DEVICE: Final = re.compile(r"cpu|cuda:\d{1,3}")


class Placement(Section):
    """The workers of one role."""

    tp: int = Field(
        1, ge=1, le=64, description="ranks of one worker: each has a part of every layer"
    )
    devices: tuple[str, ...] = Field(
        (),
        description="cuda:N or cpu, one for each rank of each worker in their order, from the "
        "beginning again where there are fewer; cuda:0 and on unless set",
    )
    share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="most that one rank takes of its GPU's memory; what is free unless set",
    )

    @field_validator("devices")
    @classmethod
    def _are_devices(cls, devices: tuple[str, ...]) -> tuple[str, ...]:
        for device in devices:
            if not _DEVICE.fullmatch(device):
                raise ValueError(f"{device!r} is no device: cuda:N or cpu")
        return devices

    @model_validator(mode="after")
    def _ranks_have_devices(self) -> Placement:
        """Ranks on one GPU would wait for each other's sums for ever."""
        if self.devices and len(self.devices) % self.tp:
            raise ValueError(
                f"{len(self.devices)} devices cannot be dealt to workers with tp {self.tp}"
            )
        for first in range(0, len(self.devices), self.tp):
            group = self.devices[first : first + self.tp]
            gpus = [device for device in group if device != "cpu"]
            if len(set(gpus)) < len(gpus) or len(gpus) not in (0, self.tp):
                raise ValueError(
                    f"the ranks of one worker need as many GPUs, or the CPU: {', '.join(group)}"
                )
        return self

    def of_worker(self, number: int) -> Placement:
        """As worker `number` of the role sees it: its own devices alone."""
        if not self.devices:
            return self
        first = number * self.tp % len(self.devices)
        return self.model_copy(update={"devices": self.devices[first : first + self.tp]})

    def device(self, rank: int, usual: str) -> str:
        """A rank's device; `usual` ("cpu" or "cuda") where none is named."""
        if self.devices:
            return self.devices[rank % len(self.devices)]
        return f"cuda:{rank}" if usual == "cuda" and self.tp > 1 else usual


class EncodePlacement(Placement):
    """Encode workers: more of them, not more ranks, share the work."""

    @field_validator("tp")
    @classmethod
    def _is_one(cls, tp: int) -> int:
        if tp != 1:
            raise ValueError("towers are not divided: start more encode workers instead")
        return tp


class PlacementConfig(Section):
    """Of each role."""

    encode: EncodePlacement = EncodePlacement()
    prefill: Placement = Placement()
    decode: Placement = Placement()
    fused: Placement = Placement()
    engine: Placement = Placement()

    def of(self, role: str) -> Placement:
        """Of one role, by its name."""
        found: Placement = getattr(self, role)
        return found
