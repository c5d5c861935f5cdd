"""One operator with its arguments, as the device is asked for it and as the host computes it."""

from __future__ import annotations

from typing import Any, Final

import torch

from tests.simulated import rooms, substitutes
from tests.simulated.card import card
from tests.simulated.order import Use

aten = torch.ops.aten

FRESH: Final = {aten.empty.memory_format, aten.empty_strided.default}

WAITING: Final = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
}
"""They look at values before they give anything."""

INDEXED: Final = {
    aten.index.Tensor,
    aten.index.Tensor_out,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
"""They take indices from the host, and wait until those are on the device."""

NUMBERLESS: Final = {aten.bitwise_and, aten.bitwise_or, aten.bitwise_xor, aten.remainder, aten.fmod}
"""torch gives numbers to Python where it took them for tensors; these do not take them back."""


class Call:
    """`given`: all tensors among the arguments."""

    def __init__(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.op, self.name = op, str(op)
        self.args, self.kwargs = _with_tensors(op, args), {**kwargs}
        self.device = card.device
        if "device" in kwargs:
            self.device = torch.device(kwargs["device"]).index or 0
            self.kwargs["device"] = torch.device("cpu")
        self.kwargs.pop("pin_memory", None)
        self.given = list(rooms.tensors([args, kwargs]))
        for each in self.given:
            self.device = each.device.index if each.is_cuda else self.device
        self._written = {id(each) for each in _written(op, args, kwargs)}
        self._shown = {id(each): rooms.host(each) for each in self.given if each.is_cuda}

    @property
    def fresh(self) -> bool:
        """Does it only lend memory?"""
        return self.op in FRESH

    @property
    def looks(self) -> bool:
        """Does the host wait for the device, to look at values or to send indices?"""
        if self.op not in INDEXED:
            return self.op in WAITING
        indices = [each for each in self.args[1] if each is not None]
        return any(not each.is_cuda or each.dtype in (torch.bool, torch.uint8) for each in indices)

    @property
    def views(self) -> bool:
        """Does it give what it was given, and compute nothing?"""
        infos = [each.alias_info for each in self.op._schema.returns]
        return bool(infos) and all(info is not None and not info.is_write for info in infos)

    def check(self) -> None:
        """All on one device, but for numbers, which may be on the host."""
        places = {each.device for each in self.given if each.is_cuda or each.dim()}
        if len(places) > 1 and self.op not in INDEXED:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{' and '.join(map(str, places))}! ({self.name})"
            )
        if self.looks:
            card.synchronize(self.name)

    def shown(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the arguments -> what the host computes with."""
        return self._shown.get(id(tensor), tensor)

    def spare(self) -> None:
        """Compute beside what would be written, for the shapes alone."""
        for each in self.given:
            if id(each) in self._written:
                self._shown[id(each)] = self._shown[id(each)].clone()

    def compute(self) -> Any:
        """The host's results."""
        op = substitutes.FOR.get(self.op, self.op)
        with torch._C._AutoDispatchBelowAutograd():
            return op(*rooms.mapped(self.args, self.shown), **rooms.mapped(self.kwargs, self.shown))

    def named(self, made: torch.Tensor, *, fresh: bool = False) -> torch.Tensor:
        """The host's result -> the device's: an argument, a view of one, or new."""
        for each in self.given:
            if self.shown(each) is made:
                return each
        return rooms.lent(made, device=self.device, fresh=fresh)

    def uses(self) -> list[Use]:
        """Of the device's memory, arguments alone."""
        return [
            rooms.use(each, writes=id(each) in self._written) for each in self.given if each.is_cuda
        ]

    def new(self, out: Any) -> list[Use]:
        """Of the device's memory, results that are no argument's."""
        known = {rooms.room(each) for each in self.given if each.is_cuda}
        made = [each for each in rooms.tensors(out) if rooms.room(each) not in known]
        return [rooms.use(each, writes=True) for each in made]

    def grow(self) -> None:
        """Outputs had another size before."""
        for each in self.given:
            shown = self.shown(each)
            if id(each) in self._written and each.is_cuda and shown.shape != each.shape:
                rooms.become(each, rooms.lent(shown, device=self.device, fresh=False))


def _with_tensors(op: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if op.overloadpacket not in NUMBERLESS:
        return args
    return (args[0], *(torch.tensor(n) if isinstance(n, (int, float)) else n for n in args[1:]))


def _written(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for place, argument in enumerate(op._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            found += rooms.tensors(given)
    return found
