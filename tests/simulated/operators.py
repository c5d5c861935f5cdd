"""torch's operators on tensors of the card: computed on the host, told to the card."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

from tests.simulated import rooms
from tests.simulated.card import DEVICE, card
from tests.simulated.order import Use

aten = torch.ops.aten

WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
}
"""They look at values before they give anything."""

INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
"""They take indices from the host, and wait until those are on the device."""

BITWISE = {aten.bitwise_and, aten.bitwise_or, aten.bitwise_xor, aten.remainder, aten.fmod}
"""They take no number for a tensor when Python asks."""

FRESH = {aten.empty.memory_format, aten.empty_strided.default}


COMPOSITE = (aten.copy_.default,)


class Call:
    """An operator with its arguments, those of the device as the host sees them."""

    def __init__(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.op, self.name = op, str(op)
        self.args, self.kwargs = _numbers(op, args), {**kwargs}
        if "device" in kwargs:
            self.kwargs["device"] = torch.device("cpu")
        self.kwargs.pop("pin_memory", None)
        self.given = list(rooms.tensors([args, kwargs]))
        self.written = {id(each) for each in _written(op, args, kwargs)}
        self._shown = {id(each): rooms.host(each) for each in self.given if each.is_cuda}

    def shown(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the arguments -> what the host computes with."""
        return self._shown.get(id(tensor), tensor)

    def spare(self) -> None:
        """Compute beside what would be written, for the shapes alone."""
        for each in self.given:
            if id(each) in self.written:
                self._shown[id(each)] = self._shown[id(each)].clone()

    def compute(self) -> Any:
        """The host's results."""
        with torch._C._AutoDispatchBelowAutograd():
            return OTHERWISE.get(self.op, self.op)(
                *rooms.mapped(self.args, self.shown), **rooms.mapped(self.kwargs, self.shown)
            )

    def named(self, result: torch.Tensor, *, fresh: bool = False) -> torch.Tensor:
        """The host's result -> the device's: an argument, a view of one, or new."""
        for each in self.given:
            if self.shown(each) is result:
                return each
        return rooms.lent(result, fresh=fresh)

    def uses(self) -> list[Use]:
        """Of the device's memory, arguments alone."""
        return [
            rooms.use(each, writes=id(each) in self.written)
            for each in self.given
            if each.is_cuda
        ]

    def grown(self) -> None:
        """Outputs that had another size before."""
        for each in self.given:
            shown = self.shown(each)
            if id(each) in self.written and each.is_cuda and shown.shape != each.shape:
                rooms.become(each, rooms.lent(shown, fresh=False))


def run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Stands for the kernels of CUDA, all of them."""
    with card.lock:
        card.settle()
        special = SPECIAL.get(op)
        if special is not None:
            return special(*args, **kwargs)
        call = Call(op, args, kwargs)
        if card.recording is not None:
            return card.recording.note(call)
        _check(call)
        if op in WAITING or _looks_up(call):
            card.synchronize(call.name)
        uses = call.uses()
        out = rooms.mapped(call.compute(), lambda made: call.named(made, fresh=op in FRESH))
        call.grown()
        known = {each.room for each in uses}
        new = [each for each in rooms.tensors(out) if rooms.room(each) not in known]
        if op not in FRESH and not (_views(op) and not new):
            card.launch([*uses, *(rooms.use(each, writes=True) for each in new)], call.name)
        return out


def _numbers(op: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """torch gives numbers to Python where it took them for tensors, and takes few of them back."""
    if op.overloadpacket not in BITWISE:
        return args
    return (args[0], *(torch.tensor(n) if isinstance(n, (int, float)) else n for n in args[1:]))


def _written(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for place, argument in enumerate(op._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            found += rooms.tensors(given)
    return found


def _views(op: Any) -> bool:
    """Does it give what it was given, and compute nothing?"""
    infos = [each.alias_info for each in op._schema.returns]
    return bool(infos) and all(info is not None and not info.is_write for info in infos)


def _looks_up(call: Call) -> bool:
    """By indices that are on the host, or by a mask."""
    if call.op not in INDEXED:
        return False
    indices = [each for each in call.args[1] if each is not None]
    return any(not each.is_cuda or each.dtype in (torch.bool, torch.uint8) for each in indices)


def _check(call: Call) -> None:
    """Numbers may come from the host; tensors that have a dimension may not."""
    if call.op in INDEXED:
        return
    strange = [each for each in call.given if not each.is_cuda and each.dim()]
    if strange and any(each.is_cuda for each in call.given):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{DEVICE} and cpu! ({call.name})"
        )


def copy(to: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """aten::copy_. Between pinned memory and the device nobody waits for it, if asked so."""
    if to.is_cuda and (source.is_cuda or not source.dim()):
        _copy_there(to, source)
    elif to.is_cuda:
        _from_host(to, source, non_blocking)
    else:
        _to_host(to, source, non_blocking)
    return to


def _copy_there(to: torch.Tensor, source: torch.Tensor) -> None:
    call = Call(aten.copy_.default, (to, source), {})
    if card.recording is not None:
        card.recording.note(call)
        return
    if not source.is_cuda and card.sync_mode == "error" and to.dtype == source.dtype:
        card.synchronize("copy of a number from the host")
    uses = call.uses()
    call.compute()
    card.launch(uses, "copy")


def _from_host(to: torch.Tensor, source: torch.Tensor, non_blocking: bool) -> None:
    if not (non_blocking and source.is_pinned()):
        card.synchronize("copy from the host")
    if card.recording is not None:
        raise RuntimeError("a graph would copy from the host")
    rooms.host(to).copy_(source)
    time = card.launch([rooms.use(to, writes=True)], "copy from the host")
    if not non_blocking:
        card.wait(card.order.clock(card.stream))
        return
    before, by = source.detach().clone(), f"copy from pinned memory at {to.shape}"

    def unchanged() -> None:
        if not torch.equal(_bits(source), _bits(before)):
            card.order.faults.append(f"{by}: the host wrote there before it was done")

    card.later(time, unchanged)


def _to_host(to: torch.Tensor, source: torch.Tensor, non_blocking: bool) -> None:
    values = rooms.host(source).clone()
    if not (non_blocking and to.is_pinned()):
        card.synchronize("copy to the host")
        to.copy_(values)
        return
    if card.recording is not None:
        raise RuntimeError("a graph would copy to the host")
    time = card.launch([rooms.use(source, writes=False)], "copy to the host")
    _bits(to).fill_(True)
    card.later(time, lambda: _put(to, values))


def _put(to: torch.Tensor, values: torch.Tensor) -> None:
    to.copy_(values)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous: its bytes."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8) if tensor.numel() else tensor


def record_stream(tensor: torch.Tensor, stream: torch.Stream) -> None:
    """aten::record_stream."""
    card.order.used_by(rooms.room(tensor), stream.stream_id)


def fused_choice(*args: Any, **kwargs: Any) -> int:
    """Attention by its definition, out of matrix products."""
    return 0


def flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    key_ends: torch.Tensor,
    longest: int,
    longest_key: int,
    dropout: float,
    causal: bool,
    debug: bool,
    *,
    scale: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, ...]:
    """aten::_flash_attention_forward of sequences of several lengths, [T, heads, dim]."""
    if query.dtype not in (torch.float16, torch.bfloat16) or ends.dtype != torch.int32:
        raise RuntimeError("FlashAttention takes 16 bits, and ends of int32")
    places = ends.tolist()
    lengths = [end - begin for begin, end in pairwise(places)]
    if longest < max(lengths) or places[-1] != len(query) or not torch.equal(ends, key_ends):
        raise RuntimeError("ends that are not those of the sequences")
    out = torch.empty_like(query)
    for begin, end in pairwise(places):
        parts = [each[begin:end].transpose(0, 1).float() for each in (query, key, value)]
        attended = F.scaled_dot_product_attention(*parts, is_causal=causal, scale=scale)
        out[begin:end] = attended.transpose(0, 1)
    nothing = torch.zeros(2, dtype=torch.int64)
    return out, torch.zeros(query.shape[1], len(query)), nothing, nothing[:0], out[:0].clone()


def counted(values: torch.Tensor, *args: Any) -> torch.Tensor:
    """aten::histc, which the host has for floating point alone."""
    return torch.histc(values.float(), *args).to(values.dtype)


OTHERWISE: dict[Any, Callable[..., Any]] = {
    aten.histc.default: counted,
    aten._flash_attention_forward.default: flash,
}
"""The host computes these in another way."""

SPECIAL: dict[Any, Callable[..., Any]] = {
    aten.copy_.default: copy,
    aten.record_stream.default: record_stream,
    aten._fused_sdp_choice.default: fused_choice,
}


def register() -> list[torch.library.Library]:
    """For as long as what it gives is held."""
    every, named = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(run, "CUDA")
    for op in COMPOSITE:  # torch has kernels of all devices for these, which find none of CUDA's
        named.impl(op, partial(run, op), "CUDA")
    return [every, named]
