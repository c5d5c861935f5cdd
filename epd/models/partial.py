"""Loads one part of a multimodal checkpoint through transformers, without reading the rest.

transformers builds a model on the meta device and fills in what it finds there. A subclass that
removes the modules nobody wants here, before anything is filled, never has their weights read or
allocated, and every renaming and fusing rule of transformers still applies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from epd.errors import ConfigError
from epd.models.dummy import dummy_part, dummy_shapes
from epd.models.fingerprint import weight_headers
from epd.models.quantised import Stored, keep_unnamed
from epd.models.shards import Shards
from epd.models.spec import Checkpoint
from epd.models.storage import SCALES, blocks_of, quantisation
from epd.models.torchvision_shim import prepare_torchvision

Change = Callable[[Any], None]
"""To a model without weights."""


def load_part(
    checkpoint: Checkpoint,
    keep: Sequence[str],
    *,
    device: str,
    dtype: str,
    shards: Shards | None = None,
    keep_blocks: bool = False,
    **options: Any,
) -> Any:
    """The Hugging Face model with only the modules at the dotted paths `keep`, ready to run.

    Refuses with ConfigError: a weight that is missing, and one that belongs to no module of the
    full model. `shards`: only this rank's part of each weight goes to the device. `keep_blocks`:
    linear modules and experts keep weights that are stored in FP8; see storage.why_plain.
    `options` go to `from_pretrained`.
    """
    whole = model_class(checkpoint)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if dtype == "float32":
        # Convolutions would silently run in TF32 on CUDA; who asks for fp32 compares answers.
        torch.backends.cudnn.allow_tf32 = False
    block, changes = blocks_of(checkpoint.config), list[Change]()
    stored = None if block is None or checkpoint.dummy else Stored(checkpoint.path, block)
    if keep_blocks and block is not None:
        changes.append(_keep(checkpoint, stored, shards))
    if stored is not None:
        changes.append(stored.join)
    part = _without(whole, keep, _beside(checkpoint), changes)
    if checkpoint.dummy:
        model = dummy_part(
            part, checkpoint.path, device=device, dtype=dtype, shards=shards, **options
        )
        return model.eval()
    if stored is not None:
        options |= stored.options(part)
    try:
        model, report = part.from_pretrained(
            checkpoint.path if stored is None else None,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"cannot load {checkpoint.path}: {error}") from error
    _refuse(checkpoint, "lacks", report["missing_keys"])
    _refuse(checkpoint, "has unknown", report["unexpected_keys"])
    if shards is not None:
        cuts = shards.cuts(model)
        for name, weight in model.named_parameters():
            weight.data = shards.take(cuts.get(name), weight.data, name).to(device)
    return model.eval().requires_grad_(False).to(device)


def shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Of all weights of the whole model that a dummy checkpoint stands for, by transformers' names.

    Imports transformers.
    """
    return dummy_shapes(model_class(checkpoint), checkpoint.path)


def small_shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Of what stays in FP8 on one rank where a dummy checkpoint's is kept."""
    adapter = checkpoint.adapter()
    keep = (*adapter.language_parts(), *adapter.tower_parts(checkpoint.spec.modalities))
    part = _without(model_class(checkpoint), keep, set(), [_keep(checkpoint, None, None)])
    found = dummy_shapes(part, checkpoint.path)
    return {name: shape for name, shape in found.items() if f"{name}{SCALES}" in found}


def _keep(checkpoint: Checkpoint, stored: Stored | None, shards: Shards | None) -> Change:
    """What lets a model keep weights in FP8; those that no file has without `stored`."""
    said = quantisation(checkpoint.config) or {}

    def keep(model: Any) -> None:
        fits = _anything if shards is None else shards.fits(model)
        if stored is None:
            keep_unnamed(model, fits, said.get("modules_to_not_convert") or ())
        else:
            stored.keep(model, fits)

    return keep


def _anything(name: str) -> bool:
    return True


def model_class(checkpoint: Checkpoint) -> Any:
    """The class in transformers, or of the family's own; imports it, which takes seconds."""
    prepare_torchvision()
    import transformers

    own = checkpoint.spec.model_class
    return own() if own is not None else getattr(transformers, checkpoint.architecture)


def _without(
    whole: Any,
    keep: Sequence[str],
    others: Collection[str],
    changes: Sequence[Change],
) -> Any:
    """A subclass of `whole` that has only `keep`; its name and module stay the parent's.

    `others` are parts of the checkpoint beside this model. `changes` are done to what is left.

    transformers takes a class of another module for custom code, and such loses its conversion
    rules.
    """

    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        whole.__init__(self, config, *args, **kwargs)
        dropped = _drop(self, keep)
        # Weights tied to a removed module are tied to nothing.
        if not all(
            _has(self, name) for pair in self.all_tied_weights_keys.items() for name in pair
        ):
            self._tied_weights_keys = None
            self.all_tied_weights_keys = {}
        # The only weights in the files that may have no place in this model.
        gone = {rf"^{re.escape(path)}\." for path in (*dropped, *others)}
        self._keys_to_ignore_on_load_unexpected = gone | set(
            self._keys_to_ignore_on_load_unexpected or ()
        )
        for change in changes:
            change(self)

    body: dict[str, Any] = {
        "__init__": __init__,
        "__module__": whole.__module__,
        "__qualname__": whole.__qualname__,
    }
    return type(whole.__name__, (whole,), body)


def _beside(checkpoint: Checkpoint) -> set[str]:
    """Names of the parts of a larger checkpoint whose weights are not this model's."""
    if not checkpoint.prefix or checkpoint.dummy:
        return set()
    names = {name for header in weight_headers(checkpoint.path) for name in header}
    others = {name for name in names if not name.startswith(checkpoint.prefix)}
    return {name.split(".", 1)[0] for name in others - {"__metadata__"}}


def _drop(module: nn.Module, keep: Sequence[str], prefix: str = "") -> list[str]:
    """Set every child that no path of `keep` leads through to None; return what was removed."""
    removed: list[str] = []
    for name, child in list(module.named_children()):
        path = f"{prefix}{name}"
        if path in keep:
            continue
        if any(wanted.startswith(f"{path}.") for wanted in keep):
            removed += _drop(child, keep, f"{path}.")
        else:
            setattr(module, name, None)
            removed.append(path)
    return removed


def _has(module: nn.Module, parameter: str) -> bool:
    owner: Any = module
    for name in parameter.split("."):
        owner = getattr(owner, name, None)
    return owner is not None


def _refuse(checkpoint: Checkpoint, how: str, keys: Sequence[str]) -> None:
    if not keys:
        return
    names = sorted(keys)
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise ConfigError(f"{checkpoint.path} {how} {len(names)} weights: {shown}")
