"""Rotations of queries and keys that are not transformers' own, in models that ask for it.

Functions cannot be replaced in one model alone: a family's module gets one that rotates as before
unless the cosines it is given say otherwise, and only those of a model from here do.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from epd.attention import ATTENTION
from epd.attention.base import rotate
from epd.attention.rotary import DeferredRotary, mark

Rotation = Callable[..., tuple[torch.Tensor, torch.Tensor]]
"""Query, key, cosines and sines -> query and key."""

_LANGUAGE = "apply_rotary_pos_emb"
_TOWER = "apply_rotary_pos_emb_vision"
_TAG = "epd_rotation"


def put_off_rotation(decoder: Any) -> None:
    """Layers whose rotation is the usual one leave it to our attention; others keep theirs."""
    attention: list[Any] = [getattr(layer, "self_attn", None) for layer in decoder.layers]
    if decoder.config._attn_implementation != ATTENTION:
        return
    if not all(_rotates_whole(layer, decoder) for layer in attention):
        return
    if not _let_ask(attention[0], _LANGUAGE, _is_usual):
        return
    deferred = DeferredRotary()
    for layer in attention:
        mark(layer, deferred)

    def tag(module: Any, args: Any, angles: tuple[torch.Tensor, torch.Tensor]) -> None:
        setattr(angles[0], _TAG, deferred.defer)

    decoder.rotary_emb.register_forward_hook(tag)


def rotate_together(model: Any) -> None:
    """Attention of vision towers turns queries and keys in one kernel, where it did so apart."""
    from epd.attention.kernels.rotary import rotate_patches

    def tag(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        setattr(kwargs["position_embeddings"][0], _TAG, rotate_patches)

    for module in model.modules():
        if _calls(module, _TOWER) and _let_ask(module, _TOWER, _is_usual_of_towers):
            module.register_forward_pre_hook(tag, with_kwargs=True)


def _let_ask(layer: Any, name: str, is_usual: Callable[[Rotation, int], bool]) -> bool:
    """Does the family's function of this name now ask cosines what to do? Only a usual one does."""
    family = sys.modules[type(layer).__module__]
    function = getattr(family, name, None)
    if function is None:
        return False
    if not hasattr(function, _TAG):
        if not is_usual(function, layer.head_dim):
            return False
        setattr(family, name, _asking(function))
    return True


def _asking(usual: Rotation) -> Rotation:
    @wraps(usual)
    def rotation(
        q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        asked: Rotation | None = getattr(cos, _TAG, None)
        return usual(q, k, cos, sin, **kwargs) if asked is None else asked(q, k, cos, sin)

    setattr(rotation, _TAG, True)
    return rotation


def _calls(module: Any, name: str) -> bool:
    forward = inspect.unwrap(type(module).forward)
    return name in getattr(forward, "__code__", _calls.__code__).co_names


def _rotates_whole(layer: Any, decoder: Any) -> bool:
    """Does it turn whole heads with the family's function?"""
    frequencies = getattr(getattr(decoder, "rotary_emb", None), "inv_freq", ())
    whole = 2 * len(frequencies) == getattr(layer, "head_dim", None)
    return whole and _LANGUAGE in type(layer).forward.__code__.co_names


def _is_usual(rotation: Rotation, dim: int) -> bool:
    """Does it turn one half of a vector against the other, as ours does?"""
    vectors, cos, sin = _probe(dim)
    found = rotation(*vectors[:, None, None], cos[None], sin[None])
    return _are_turned([turned[0, 0] for turned in found], vectors, cos, sin)


def _is_usual_of_towers(rotation: Rotation, dim: int) -> bool:
    """The same, of patches before their heads."""
    vectors, cos, sin = _probe(dim)
    found = rotation(*vectors[:, :, None], cos, sin)
    return _are_turned([turned[:, 0] for turned in found], vectors, cos, sin)


def _probe(dim: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A query and a key of two tokens and one head [2, 2, dim], and [2, dim] twice."""
    vectors = torch.linspace(-1, 1, 4 * dim).view(2, 2, dim)
    angles = torch.linspace(0, 3, dim).view(2, dim // 2).repeat(1, 2)
    return vectors, angles.cos(), angles.sin()


def _are_turned(
    found: list[torch.Tensor], vectors: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> bool:
    turned = (rotate(each, (cos, sin)) for each in vectors)
    return all(torch.allclose(*pair, atol=1e-6) for pair in zip(found, turned, strict=True))
