"""Compiles every kernel for a card that need not be there, as `python -m` with its capability.

Prints a JSON list of [name, bytes of shared memory, bytes that a thread spills]. Nothing is run:
Triton's driver is one that only names the card.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit

from epd.attention.kernels.blocks import FEW_ROWS, product
from epd.attention.kernels.decode import decode
from epd.attention.kernels.experts import product as of_experts
from epd.attention.kernels.prefill import prefill, tile_queries
from epd.attention.kernels.rms_norm import add_rms_norm, rms_norm
from epd.attention.kernels.rotary import rotate_patches
from epd.attention.kernels.rows import add_rows, put_rows
from epd.attention.kernels.sample import Notes, sample
from epd.attention.kernels.silu_mul import silu_mul
from epd.attention.kernels.write import write

BF16 = torch.bfloat16
# Query heads, KV heads, values of a head: Qwen2.5-VL-7B, an odd one, the widest.
HEADS = ((28, 4, 128, BF16), (8, 8, 80, torch.float16), (8, 2, 256, torch.float32))
TOKENS = 4


class NoCard:
    """Of Triton's driver, what compiling asks."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return self._target


def main(capability: int) -> list[tuple[str, int, int]]:
    """Launch everything; launches stop where they would run."""
    found: list[tuple[str, int, int]] = []
    run = jit.JITFunction.run

    def compile_only(self: Any, *args: Any, warmup: bool, **kwargs: Any) -> Any:
        made = run(self, *args, warmup=True, **kwargs)
        found.append((self.fn.__name__, made.metadata.shared, spilled(made.asm["cubin"])))
        return made

    jit.JITFunction.run = compile_only
    driver.set_active(NoCard(capability))
    for heads, kv_heads, dim, dtype in HEADS:
        attention(heads, kv_heads, dim, dtype)
    small(torch.zeros(1, 5, 3584, dtype=BF16))
    blocks(capability >= 89)
    experts(capability >= 89)
    sampling(torch.zeros(4, 152064, dtype=BF16))
    return found


def spilled(cubin: bytes) -> int:
    """STACK of the one function in it, as NVIDIA's tool that comes with Triton tells."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command: list[str | Path] = [tool, "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (stack,) = (part for part in said.split() if part.startswith("STACK:"))
    return int(stack.removeprefix("STACK:"))


def attention(heads: int, kv_heads: int, dim: int, dtype: torch.dtype) -> None:
    """Decode in one part and in eight, prefill in large tiles and small, both kinds of write."""
    query = torch.zeros(TOKENS, heads + 2 * kv_heads, dim, dtype=dtype)[:, :heads].transpose(0, 1)
    key = torch.zeros(kv_heads, TOKENS, dim, dtype=dtype)
    pages = torch.zeros(256, kv_heads, dim, dtype=dtype)
    out = torch.zeros(TOKENS, heads, dim, dtype=dtype)
    tables, ones = torch.ones(TOKENS, 8, dtype=torch.int32), torch.ones(TOKENS, dtype=torch.int32)
    angles = torch.zeros(TOKENS, dim, dtype=dtype)
    both: dict[str, Any] = {"tables": tables, "block_size": 16, "scaling": 0.1}
    for splits in (1, 8):
        decode(query, pages, pages, out, lengths=ones, window=None, splits=splits, **both)
    for tile in (16, tile_queries(512, dim, dtype)):
        prefill(query, pages, pages, out, tiles=tables[:, :4], tile=tile, window=7, **both)
    for slots, rotary in ((None, (angles, angles)), (ones, None)):
        write(
            query,
            key,
            key,
            pages,
            pages,
            block_size=16,
            slots=slots,
            tables=tables,
            lengths=ones,
            rotary=rotary,
        )


def small(x: torch.Tensor) -> None:
    """What stands between products."""
    rms_norm(x, x[0, 0], 1e-6)
    add_rms_norm(x, x.clone(), x[0, 0], 1e-6)
    rms_norm(x.view(1, 5, 28, 128), x[0, 0, :128], 1e-6)
    silu_mul(torch.zeros(1, 5, 2 * 18944, dtype=x.dtype))
    places = torch.zeros(3, dtype=torch.int64)
    put_rows(x[0], places, x[0, :3])
    for dim in (64, 72, 80, 128):
        query, key, _ = torch.zeros(5, 3, 16, dim, dtype=x.dtype).unbind(1)
        rotate_patches(query, key, *torch.zeros(2, 5, dim))
    add_rows(x[0], places, x[0, :3])


def blocks(knows_e4m3: bool) -> None:
    """A token, a batch, one that fills tiles, and prefill; then a sum that is split."""
    for n, k, rows in (
        *((24576, 4096, rows) for rows in (1, 8, 64, 512)),
        *((1000, 1360, rows) for rows in (1, 64, 512)),
        *((64, 3584, rows) for rows in (1, 8)),
    ):
        x = torch.zeros(rows, k, dtype=BF16)
        weight = torch.zeros(n, k, dtype=torch.float8_e4m3fn)
        factors, bias = torch.zeros(-(-n // 128), -(-k // 128)), torch.zeros(n, dtype=BF16)
        product(x, weight, factors, bias, narrows=False, knows_e4m3=knows_e4m3)
        if knows_e4m3 and rows > FEW_ROWS:
            product(x, weight, factors, bias, narrows=True, knows_e4m3=True)


def experts(knows_e4m3: bool) -> None:
    """Qwen3-VL-30B-A3B's: a token, a batch and prefill, from where rows lie and to there."""
    weight = torch.zeros(128, 1536, 2048, dtype=torch.float8_e4m3fn)
    factors, ends = torch.zeros(128, 12, 16), torch.zeros(128, dtype=torch.int32)
    for rows in (8, 4096, 16384):
        x, order = torch.zeros(rows, 2048, dtype=BF16), torch.zeros(rows, dtype=torch.int64)
        for narrows in (False, True)[: 1 + (knows_e4m3 and rows > 8192)]:
            of_experts(
                x,
                order,
                weight,
                factors,
                ends,
                order,
                rows=rows,
                narrows=narrows,
                knows_e4m3=knows_e4m3,
            )


def sampling(logits: torch.Tensor) -> None:
    """Rows of every kind: which one a row is, is decided on the card."""
    num, vocab = logits.shape
    words = torch.zeros(num, vocab // 32, dtype=torch.int32)
    counts, bias = torch.zeros(num, vocab, dtype=torch.int32), torch.zeros(num, vocab)
    notes = Notes(words, words.clone(), counts, bias, torch.ones(num, 4))
    rows, ints = torch.zeros(num, 5, dtype=torch.int64), torch.ones(num, 3, dtype=torch.int64)
    sample(logits, rows, notes, words.clone(), ints.double(), ints, draws=True)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]))) + "\n")
