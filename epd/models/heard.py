"""What a language model asks of attention, found out by running one token through it.

transformers' layers pass whatever their family needs to the attention function: windows, caps,
sinks. Ours computes causal attention, within a window where one is asked for; a model that asks for
more is refused when it is loaded, whatever its configuration said.
"""

from __future__ import annotations

from typing import Any

import torch

from epd.errors import UnsupportedModel
from epd.models.variants import FULL, SLIDING, is_window

_PROBE = "epd_probe"
_WITHOUT_EFFECT = frozenset({"dropout", "output_attentions", "position_ids", "use_cache"})
_HEARD = frozenset({"scaling"})
_WINDOW = "sliding_window"


def refuse_unheard(decoder: Any, name: str) -> None:
    """UnsupportedModel names what attention would have to do. One forward of one token."""
    types = list(getattr(decoder.config, "layer_types", None) or ())
    kinds = sorted({*types} - {FULL, SLIDING})
    if kinds:  # what only a mask would show, and attention gets none
        raise UnsupportedModel(f"{name}: layers of the types {', '.join(kinds)} are not supported")
    calls = _calls(decoder)
    asked = sorted({what for _, kwargs in calls for what in kwargs} - {_WINDOW})
    if asked:
        raise UnsupportedModel(f"{name}: attention with {', '.join(asked)} is not supported")
    layers = [layer for layer, _ in calls]
    if layers != list(range(decoder.config.num_hidden_layers)):
        raise UnsupportedModel(
            f"{name}: only {len(set(layers))} of {decoder.config.num_hidden_layers} layers have"
            " attention of their own"
        )
    for layer, kwargs in calls:
        _check_window(name, layer, types[layer] if types else None, kwargs.get(_WINDOW))


def _check_window(name: str, layer: int, kind: str | None, window: object) -> None:
    """transformers' mask goes by the layer's type, attention by its window: they have to agree."""
    if window is not None and not is_window(window):
        raise UnsupportedModel(f"{name}: a sliding_window of {window} in layer {layer}")
    if kind is not None and (kind == SLIDING) != (window is not None):
        seen = "all tokens" if window is None else f"a sliding_window of {window} tokens"
        raise UnsupportedModel(f"{name}: layer {layer} is of the type {kind} and asks for {seen}")


def _calls(decoder: Any) -> list[tuple[int, dict[str, Any]]]:
    """Of each layer, in the order of their calls: what it asks beyond the plain kind."""
    from transformers import AttentionInterface

    calls: list[tuple[int, dict[str, Any]]] = []

    def probe(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        asked = {n: v for n, v in kwargs.items() if _asks(n, v)}
        if attention_mask is not None:
            asked["mask"] = attention_mask
        calls.append((module.layer_idx, asked))
        return value.new_zeros(*query.shape[:-1], value.shape[-1]).transpose(1, 2), None

    AttentionInterface.register(_PROBE, probe)
    weight = decoder.get_input_embeddings().weight
    usual = decoder.config._attn_implementation
    decoder.config._attn_implementation = _PROBE
    try:
        with torch.inference_mode():
            decoder(
                inputs_embeds=weight.new_zeros(1, 1, weight.shape[1]),
                position_ids=torch.zeros(1, 1, dtype=torch.int64, device=weight.device),
                attention_mask=None,
                past_key_values=None,
                use_cache=False,
            )
    finally:
        decoder.config._attn_implementation = usual
    return calls


def _asks(name: str, value: Any) -> bool:
    if name == "is_causal":
        return value is False
    return value is not None and name not in _WITHOUT_EFFECT | _HEARD
