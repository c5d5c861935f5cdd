"""What the ranks of all workers will need of each GPU, against what it has: sums, and a refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epd.errors import ConfigError
from epd.observe.memory import Need, Where, size, total


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """Bytes of one GPU: all of them, and those that nobody has taken yet."""

    total: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One rank of a worker on one GPU. `share`: most that it may take of all the GPU's memory."""

    name: str
    device: str
    share: float | None
    needs: Sequence[Need]

    @property
    def num_bytes(self) -> int:
        """Of the GPU."""
        return total(self.needs, Where.DEVICE)

    def sum(self) -> str:
        """weights 14.2 GiB + KV cache 1.0 GiB = 15.2 GiB."""
        own = [need for need in self.needs if need.where is Where.DEVICE and need.num_bytes]
        own.sort(key=lambda need: need.num_bytes, reverse=True)
        terms = " + ".join(f"{need.name} {size(need.num_bytes)}" for need in own)
        return f"{self.name}: {terms} = {size(self.num_bytes)}"


def check_devices(tenants: Sequence[Tenant], gpus: Mapping[str, Gpu]) -> None:
    """ConfigError with the arithmetic where a rank's share, or a GPU, is too small."""
    for device in sorted({tenant.device for tenant in tenants}):
        here = [tenant for tenant in tenants if tenant.device == device]
        if device not in gpus:
            there = ", ".join(sorted(gpus)) or "no GPU"
            raise ConfigError(f"{here[0].name} is placed on {device}; there is {there}")
        _check(device, here, gpus[device])


def _check(device: str, here: Sequence[Tenant], gpu: Gpu) -> None:
    for tenant in here:
        if tenant.share is not None and tenant.num_bytes > tenant.share * gpu.total:
            raise ConfigError(
                f"{tenant.sum()}, more than its share of {device}: {tenant.share:g} of "
                f"{size(gpu.total)} = {size(int(tenant.share * gpu.total))}"
            )
    shares = [tenant.share for tenant in here if tenant.share is not None]
    if sum(shares) > 1 + 1e-9:
        added = " + ".join(f"{share:g}" for share in shares)
        raise ConfigError(f"shares of {device} are {added} = {sum(shares):g}, more than all of it")
    wanted = sum(tenant.num_bytes for tenant in here)
    if wanted > gpu.free:
        sums = "; ".join(tenant.sum() for tenant in here)
        raise ConfigError(
            f"{device} would have to hold {size(wanted)}, {size(gpu.free)} of {size(gpu.total)} "
            f"is free: {sums}"
        )
