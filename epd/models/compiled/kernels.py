"""The compiled library's functions and the structures that they take; see library.cpp.

Structures hold addresses, not tensors: whoever makes one keeps its tensors alive.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_bool, c_float, c_int64, c_void_p
from pathlib import Path

import torch

from epd.models.compiled.build import load_library

# Of a step of single tokens. With 24 rows it still takes about half the time of packed float32
# products, which gain with every row more.
MOST_ROWS = 32

LANES = 16
"""Numbers in one vector."""


class Product(Structure):
    """A weight matrix in tiles, with its bias or none."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("input", c_int64), ("output", c_int64))


class Screen(Structure):
    """What tells how large the outputs of a product may be; see screen.h."""

    _fields_ = (("bytes", c_void_p), ("scale", c_void_p), ("error", c_void_p))


class Layer(Structure):
    """Weights of one decoder layer."""

    _fields_ = (
        ("input_norm", c_void_p),
        ("qkv", Product),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
        ("o", Product),
        ("post_norm", c_void_p),
        ("gate_up", Product),
        ("down", Product),
    )


class Heads(Structure):
    """Shapes of attention."""

    _fields_ = (
        ("num", c_int64),
        ("num_kv", c_int64),
        ("dim", c_int64),
        ("scaling", c_float),
        ("eps", c_float),
    )


class Decoder(Structure):
    """All layers and the norm behind them."""

    _fields_ = (
        ("hidden", c_int64),
        ("intermediate", c_int64),
        ("num_layers", c_int64),
        ("heads", Heads),
        ("layers", POINTER(Layer)),
        ("norm", c_void_p),
    )


class Pages(Structure):
    """Keys and values of all layers, and which of them belong to whom."""

    _fields_ = (
        ("keys", c_void_p),
        ("values", c_void_p),
        ("layer_size", c_int64),
        ("block_size", c_int64),
        ("tables", c_void_p),
        ("table_width", c_int64),
        ("lengths", c_void_p),
    )


class Step(Structure):
    """New tokens of some sequences, one behind the other; see layers.h."""

    _fields_ = (
        ("rows", c_int64),
        ("threads", c_int64),
        ("embeds", c_void_p),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("out", c_void_p),
        ("pages", Pages),
        ("sequences", c_int64),
        ("counts", c_void_p),
        ("levels", c_int64),
        ("num_places", c_int64),
        ("places", c_void_p),
        ("more", c_void_p),
    )


class Block(Structure):
    """Weights and shapes of one block of a vision tower; see tower.h."""

    _fields_ = (
        ("hidden", c_int64),
        ("intermediate", c_int64),
        ("heads", c_int64),
        ("scaling", c_float),
        ("eps1", c_float),
        ("eps2", c_float),
        ("norm1", c_void_p),
        ("norm2", c_void_p),
        ("qkv", Product),
        ("proj", Product),
        ("gate_up", Product),
        ("down", Product),
    )


class Patches(Structure):
    """What it is given."""

    _fields_ = (
        ("rows", c_int64),
        ("threads", c_int64),
        ("hidden", c_void_p),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("num_ends", c_int64),
        ("ends", c_void_p),
    )


class Kernels:
    """The library. Calls let other Python threads run.

    `takes_many`: whether it multiplies many rows too, faster than all else here: not where oneDNN
    has a matrix unit (AMX).
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        library.epd_takes_many.restype = c_bool
        self.takes_many = library.epd_takes_many() and not torch.cpu._is_amx_tile_supported()
        if self.takes_many:
            self._take_many(library)
        self._decode = library.epd_decode
        self._decode.argtypes = (POINTER(Decoder), POINTER(Step))
        self._decode.restype = None
        self._multiply = library.epd_multiply
        self._multiply.argtypes = (POINTER(Product), c_void_p, c_void_p, c_int64, c_int64)
        self._multiply.restype = None
        self._likeliest = library.epd_likeliest
        self._likeliest.argtypes = (
            *(POINTER(Product), POINTER(Screen)),
            *(c_void_p, c_void_p, c_int64, c_int64),
        )
        self._likeliest.restype = None
        self._silu_mul = library.epd_silu_mul
        self._silu_mul.argtypes = (c_void_p, c_void_p, c_int64, c_int64, c_int64)
        self._silu_mul.restype = None
        self._rms_norm = library.epd_rms_norm
        self._rms_norm.argtypes = (
            *(c_void_p, c_void_p, c_void_p),
            *(c_int64, c_int64, c_float, c_int64),
        )
        self._rms_norm.restype = None
        self._settle = library.epd_prefer_large_pages
        self._settle.argtypes = (c_void_p, c_int64)
        self._settle.restype = None

    def _take_many(self, library: ctypes.CDLL) -> None:
        self._prefill = library.epd_prefill
        self._prefill.argtypes = (POINTER(Decoder), POINTER(Step))
        self._prefill.restype = None
        self._tower_block = library.epd_tower_block
        self._tower_block.argtypes = (POINTER(Block), POINTER(Patches))
        self._tower_block.restype = None
        self._multiply_many = library.epd_multiply_many
        self._multiply_gated = library.epd_multiply_gated
        for function in (self._multiply_many, self._multiply_gated):
            function.argtypes = (POINTER(Product), c_void_p, c_void_p, c_int64, c_int64)
            function.restype = None

    def empty(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        """On large pages of memory, where the system has some: reading is 4 % faster."""
        made = torch.empty(*shape, dtype=dtype)
        self._settle(made.data_ptr(), made.nbytes)
        return made

    def multiply(self, product: Product, x: torch.Tensor, out: torch.Tensor) -> None:
        """[rows, in] -> [rows, out], contiguous bfloat16."""
        threads = torch.get_num_threads()
        self._multiply(byref(product), x.data_ptr(), out.data_ptr(), len(x), threads)

    def multiply_many(self, product: Product, x: torch.Tensor, out: torch.Tensor) -> None:
        """As multiply(), for more rows than a few; where `takes_many`."""
        threads = torch.get_num_threads()
        self._multiply_many(byref(product), x.data_ptr(), out.data_ptr(), len(x), threads)

    def multiply_gated(self, product: Product, x: torch.Tensor, out: torch.Tensor) -> None:
        """[rows, in] -> silu(first half of the outputs) * second half, [rows, out / 2].

        Where `takes_many`; each half consists of whole tiles.
        """
        threads = torch.get_num_threads()
        self._multiply_gated(byref(product), x.data_ptr(), out.data_ptr(), len(x), threads)

    def likeliest(
        self, product: Product, screen: Screen, x: torch.Tensor, ids: torch.Tensor
    ) -> None:
        """[rows, in] contiguous bfloat16 -> [rows] int64."""
        threads = torch.get_num_threads()
        self._likeliest(
            byref(product), byref(screen), x.data_ptr(), ids.data_ptr(), len(x), threads
        )

    def silu_mul(self, joined: torch.Tensor) -> torch.Tensor:
        """[..., 2 * n] contiguous bfloat16 -> silu(first half) * second half, [..., n].

        n is a multiple of LANES.
        """
        size = joined.shape[-1] // 2
        out = joined.new_empty(*joined.shape[:-1], size)
        rows, threads = out.numel() // size, torch.get_num_threads()
        self._silu_mul(joined.data_ptr(), out.data_ptr(), rows, size, threads)
        return out

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """[..., n] contiguous bfloat16 -> the same. n is a multiple of LANES."""
        size = x.shape[-1]
        out = torch.empty_like(x)
        rows, threads = x.numel() // size, torch.get_num_threads()
        self._rms_norm(
            *(x.data_ptr(), weight.data_ptr(), out.data_ptr()), *(rows, size, eps, threads)
        )
        return out

    def decode(self, decoder: Decoder, step: Step) -> None:
        """Write the last hidden states to `step.out`, and new keys and values to the pages."""
        self._decode(byref(decoder), byref(step))

    def prefill(self, decoder: Decoder, step: Step) -> None:
        """The same for many tokens of each sequence; where `takes_many`."""
        self._prefill(byref(decoder), byref(step))

    def tower_block(self, block: Block, patches: Patches) -> None:
        """Change `patches.hidden` to what comes out; where `takes_many`."""
        self._tower_block(byref(block), byref(patches))


def load_kernels(cache: Path) -> Kernels | None:
    """None where they cannot be built; the log says why."""
    library = load_library(cache)
    return None if library is None else Kernels(library)
