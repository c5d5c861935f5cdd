"""How many kernels does a step launch and how many bytes do they move, against the least?

    python -m bench.gpu.launches

Needs no card: the model lies on torch's meta device, which has shapes and no values, so every
operation is the one that a card would be given, at the real size. With `sdpa` layers are
transformers' own; with `triton` and `flash` they are fused, and ids are chosen in one pass. Views
and new memory cost nothing; attention counts as one launch, but for our kernels, which are counted
one by one; a library may use more than one kernel for an operation. Bytes are what operations take
and give, each time: what a fused kernel would keep in registers is counted as often as it is
written and read. The table goes to stderr, one JSON object to stdout.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.gpu.checkpoint import without_weights
from bench.gpu.floors import decode_bytes, kv_bytes
from bench.gpu.kernels import as_on_a_card, flash_attn
from bench.gpu.shape import REAL, Shape, read_shape
from bench.serving import hardware
from epd.attention import (
    ATTENTION,
    AttentionBackend,
    PagedBatch,
    PagedSequence,
    SdpaBackend,
    register,
)
from epd.engine.sampler import Sampler
from epd.models.fused import fuse
from epd.models.language import LanguageModel
from epd.models.partial import model_class
from epd.models.spec import read_checkpoint
from epd.types import SamplingParams

BATCHES = (1, 8, 32, 128)
CONTEXT = 1024
CHUNK = 2048
BLOCK = 16
PLAIN = SamplingParams(max_tokens=2)
DRAWN = SamplingParams(max_tokens=2, temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05)

FUSED_LAYER = (
    "norm with residual",
    "q, k and v",
    "rotary with the write of KV",
    "attention",
    "o",
    "norm with residual",
    "gate and up",
    "activation and product",
    "down",
)
"""A layer in which only what depends on all of a row is a kernel of its own."""

FUSED_REST = ("embedding", "last norm", "head", "sampler")
FREE = ("empty", "new_empty", "empty_like")
PARTIAL = ("embedding", "index_select", "index_copy", "index_copy_", "index_add_", "gather")
"""Operations that touch only the rows they are given numbers of."""


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations on the device by name, and the bytes that they take and give."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()

    def add(self, name: str, *tensors: Any) -> None:
        """One launch."""
        self.counts[name] += 1
        self.moved[name] += sum(each.nbytes for each in tensors)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        given = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        on_device = any(each.is_meta for each in [*taken, *given])
        if name in FREE or not on_device or _is_view(name, taken, given):
            return out
        if name in PARTIAL:
            smallest = min(taken[:1] + taken[2:] + given, key=lambda each: each.nbytes)
            self.add(name, smallest, smallest)
        else:
            self.add(name, *_once([*taken, *given]))
        return out


class OneAttention(TorchFunctionMode):
    """Attention is one launch, however torch would take it apart here."""

    def __init__(self, launches: Launches) -> None:
        super().__init__()
        self._launches = launches

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args[:3]
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        self._launches.add("attention", query, key, value, out)
        return out


def counted(call: Callable[[], Any]) -> Launches:
    """What a call launches, of torch's own."""
    launches = Launches()
    with torch.inference_mode(), launches, OneAttention(launches):
        call()
    return launches


ATTENTIONS = ("sdpa", "triton", "flash")
"""With the first one layers are transformers', with the others they are fused, as on a card."""


class Stand:
    """One model's language half without values, with pages of KV."""

    def __init__(self, folder: Path, shape: Shape, attention: str) -> None:
        checkpoint = read_checkpoint(without_weights(folder, shape))
        adapter = checkpoint.adapter()
        whole = model_class(checkpoint)
        register()
        with torch.device("meta"):
            settings = whole.config_class.from_pretrained(checkpoint.path)
            model = whole._from_config(settings, dtype=getattr(torch, shape.dtype))
        decoder = adapter.decoder(model)
        decoder.config._attn_implementation = ATTENTION
        model.eval().requires_grad_(False)
        self.attention, self.shape = attention, shape
        self._kernels = Launches()
        with self._card():
            if attention != "sdpa":
                fuse(model, decoder)
            self.model = LanguageModel(adapter, model)

    def _card(self) -> ExitStack:
        """Kernels beside torch's own can be launched, and are counted in `_kernels`."""
        stack = ExitStack()
        if self.attention != "sdpa":
            stack.enter_context(as_on_a_card(self._add))
            stack.enter_context(flash_attn(self._add))
        return stack

    def _add(self, name: str, *tensors: Any) -> None:
        self._kernels.add(name, *tensors)

    def _counted(self, call: Callable[[], Any]) -> Launches:
        self._kernels = Launches()
        with self._card():
            found = counted(call)
        found.counts += self._kernels.counts
        found.moved += self._kernels.moved
        return found

    def _backend(self) -> AttentionBackend[Any]:
        if self.attention == "sdpa":
            return SdpaBackend()
        if self.attention == "triton":
            from epd.attention.triton import TritonBackend

            return TritonBackend()
        from epd.attention.flash import FlashBackend

        return FlashBackend(2)

    def decode(self, batch: int) -> Launches:
        """The model's part of a step in which every request has one new token."""
        return self._forward([(1, CONTEXT + 1)] * batch)

    def prefill(self) -> Launches:
        """A prompt that is one chunk."""
        return self._forward([(CHUNK, CHUNK)])

    def sample(self, batch: int, sampling: SamplingParams) -> Launches:
        """From logits to ids."""
        vocab = self.model.vocab_size
        names = list(range(batch))
        with self._card():
            sampler = Sampler(vocab_size=vocab, device=torch.device("meta"))
            for name in names:
                sampler.add(name, sampling, 0, [1, 2, 3], [])
        logits = torch.empty(batch, vocab, device="meta", dtype=self.model.dtype)
        return self._counted(lambda: sampler.sample(logits, names))

    def _forward(self, sequences: list[tuple[int, int]]) -> Launches:
        """The plan is made by a forward that is not counted."""
        model, text = self.model, self.shape.text
        each = math.ceil(max(length for _, length in sequences) / BLOCK)
        slots = BLOCK * each * len(sequences)
        pages = torch.empty(
            2, text.layers, slots, text.kv_heads, text.head_dim, device="meta", dtype=model.dtype
        )
        packed = tuple(
            PagedSequence(num, length, range(number * each, (number + 1) * each))
            for number, (num, length) in enumerate(sequences)
        )
        with self._card():
            plan = self._backend().bind(PagedBatch(packed, pages[0], pages[1], BLOCK))
        num_new = sum(num for num, _ in sequences)
        ids = torch.empty(num_new, device="meta", dtype=torch.int64)
        positions = torch.empty(3, num_new, device="meta", dtype=torch.float64)
        lasts = torch.empty(len(sequences), device="meta", dtype=torch.int64)

        def step() -> None:
            hidden = model.forward(model.embed(ids), positions, plan)
            model.logits(hidden.index_select(0, lasts))

        self._counted(step)
        return self._counted(step)


def measure(shape: Shape, folder: Path, attention: str) -> Iterator[dict[str, Any]]:
    """Of one model: decodes, a prefill, and sampling."""
    stand = Stand(folder, shape, attention)
    for batch in BATCHES:
        floor = decode_bytes(shape, batch, CONTEXT)
        yield _told(stand, f"decode, batch {batch}", stand.decode(batch), floor.total)
    weights = decode_bytes(shape, 1, 0).weights
    yield _told(stand, f"prefill, {CHUNK}", stand.prefill(), weights + kv_bytes(shape, CHUNK))
    logits = decode_bytes(shape, 8, 0).logits // 2
    yield _told(stand, "sample, greedy, batch 8", stand.sample(8, PLAIN), logits)
    yield _told(stand, "sample, drawn, batch 8", stand.sample(8, DRAWN), logits)


def _told(stand: Stand, what: str, launches: Launches, floor: int) -> dict[str, Any]:
    fused = len(FUSED_LAYER) * stand.shape.text.layers + len(FUSED_REST) - 1
    return {
        "model": stand.shape.name,
        "attention": stand.attention,
        "what": what,
        "launches": launches.counts.total(),
        "fused_launches": 1 if what.startswith("sample") else fused,
        "bytes": launches.moved.total(),
        "least_bytes": floor,
        "by_operation": dict(launches.counts.most_common()),
        "bytes_by_operation": dict(launches.moved.most_common()),
    }


def _is_view(name: str, taken: list[Any], given: list[Any]) -> bool:
    """All that it gives lies where something that it took lies, and it changed none of that."""
    places = {each.untyped_storage()._cdata for each in taken}
    return not name.endswith("_") and all(each.untyped_storage()._cdata in places for each in given)


def _once(tensors: list[Any]) -> list[Any]:
    """Without repeats: what is changed in place is both taken and given."""
    return list({id(each): each for each in tensors}.values())


def table(rows: list[dict[str, Any]]) -> str:
    """For people, as Markdown."""
    lines = [
        "| model | attention | step | launches | fused | GB moved | at least | times |",
        "|---|---|---|" + "---:|" * 5,
    ]
    for row in rows:
        cells = [
            row["model"],
            row["attention"],
            row["what"],
            str(row["launches"]),
            str(row["fused_launches"]),
        ]
        cells += [f"{row['bytes'] / 1e9:.3f}", f"{row['least_bytes'] / 1e9:.3f}"]
        cells.append(f"{row['bytes'] / row['least_bytes']:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Count both models."""
    rows = []
    for name in REAL:
        for attention in ATTENTIONS:
            with tempfile.TemporaryDirectory() as folder:
                rows += list(measure(read_shape(name), Path(folder) / name, attention))
    print(table(rows), file=sys.stderr)
    print(json.dumps({"question": "launches", **hardware.facts(), "rows": rows}))


if __name__ == "__main__":
    main()
