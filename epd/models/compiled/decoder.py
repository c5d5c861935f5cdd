"""Steps of the decoders that decode.h and prefill.h compute; which those are.

Nothing is guessed: a decoder is one of transformers' classes named here, made of exactly the
modules that these classes have today, with our leaves in it, and configured for what the kernel
does. Any other one has no compiled layers and runs as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from epd.attention import ATTENTION, NewTokens
from epd.attention.row_writes import Deepstack
from epd.models.compiled.kernels import MOST_ROWS, Decoder, Heads, Kernels, Layer, Pages, Step
from epd.models.compiled.streamed import TILE_OUT, Streamed

_LEAVES = {
    **{f"self_attn.{name}_proj": "JointLinear" for name in "qkv"},
    "self_attn.q_proj.linear": "PackedLinear",
    "self_attn.o_proj": "PackedLinear",
    "mlp": "GatedMlp",
    "mlp.gate_up": "PackedLinear",
    "mlp.down_proj": "PackedLinear",
    "input_layernorm": "RmsNorm",
    "post_attention_layernorm": "RmsNorm",
}
_HEAD_NORMS = {"self_attn.q_norm": "RmsNorm", "self_attn.k_norm": "RmsNorm"}

# Class of the decoder -> beginning of its layers' classes, and what else there is in a layer.
_ALIKE: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "LlamaModel": ("Llama", {}),
    "MistralModel": ("Mistral", {}),
    "Qwen2Model": ("Qwen2", {}),
    "Qwen2VLTextModel": ("Qwen2VL", {}),
    "Qwen2_5_VLTextModel": ("Qwen2_5_VL", {}),
    "Qwen2_5OmniThinkerTextModel": ("Qwen2_5Omni", {}),
    "Qwen3Model": ("Qwen3", _HEAD_NORMS),
    "Qwen3VLTextModel": ("Qwen3VLText", _HEAD_NORMS),
}

# Class of the decoder -> module names of a layer and their classes.
LAYERS: Mapping[str, Mapping[str, str]] = {
    decoder: {"": f"{name}DecoderLayer", "self_attn": f"{name}Attention", **_LEAVES, **more}
    for decoder, (name, more) in _ALIKE.items()
}


class CompiledDecoder:
    """All layers of one decoder and the norm behind them; embeddings and head are elsewhere."""

    def __init__(self, decoder: Any, kernels: Kernels) -> None:
        self._kernels = kernels
        self._rotary = decoder.rotary_emb
        self._has_axes = hasattr(self._rotary, "mrope_section")
        self._weights = decoder  # the structures below hold addresses in it
        config, attention = decoder.config, decoder.layers[0].self_attn
        layers = [_layer(layer) for layer in decoder.layers]
        self._decoder = Decoder(
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            num_layers=len(layers),
            heads=Heads(
                num=config.num_attention_heads,
                num_kv=config.num_key_value_heads,
                dim=attention.head_dim,
                scaling=attention.scaling,
                eps=config.rms_norm_eps,
            ),
            layers=(Layer * len(layers))(*layers),
            norm=decoder.norm.weight.data_ptr(),
        )

    def takes(self, tokens: NewTokens, deepstack: Deepstack | None = None) -> bool:
        """Can this step be computed here, and gain from it?"""
        return self._kernels.takes_many or (deepstack is None and _few(tokens))

    def forward(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        tokens: NewTokens,
        deepstack: Deepstack | None = None,
    ) -> torch.Tensor:
        """[T, hidden] at [3, 1, T] or [1, T] -> last hidden states [T, hidden].

        Writes keys and values of the new tokens to their pages. `deepstack`: see LanguageModel.
        """
        embeds = embeds.contiguous()
        if self._has_axes and positions.dim() == 2:
            positions = positions[None]
        cos, sin = self._rotary(embeds, positions)
        places, more = _deepstack(deepstack, embeds)
        self._check(embeds, cos, sin, tokens)
        out = torch.empty_like(embeds)
        step = Step(
            rows=len(embeds),
            threads=torch.get_num_threads(),
            embeds=embeds.data_ptr(),
            cos=cos.data_ptr(),
            sin=sin.data_ptr(),
            out=out.data_ptr(),
            pages=Pages(
                keys=tokens.keys.data_ptr(),
                values=tokens.values.data_ptr(),
                layer_size=tokens.keys.stride(0),
                block_size=tokens.block_size,
                tables=tokens.tables.data_ptr(),
                table_width=tokens.tables.shape[1],
                lengths=tokens.lengths.data_ptr(),
            ),
            sequences=len(tokens.lengths),
            counts=tokens.counts.data_ptr(),
            levels=len(more),
            num_places=len(places),
            places=places.data_ptr(),
            more=more.data_ptr(),
        )
        few = deepstack is None and _few(tokens)
        run = self._kernels.decode if few else self._kernels.prefill
        run(self._decoder, step)
        return out

    def _check(
        self, embeds: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, tokens: NewTokens
    ) -> None:
        """The kernel trusts addresses: what lies there is as it thinks."""
        heads = self._decoder.heads
        for tensor in (embeds, cos, sin, tokens.keys, tokens.values):
            assert tensor.dtype == torch.bfloat16 and tensor.is_contiguous()
        assert embeds.shape == (tokens.num_new, self._decoder.hidden)
        assert cos.shape == sin.shape == (1, len(embeds), heads.dim)
        assert tokens.keys.shape == tokens.values.shape
        assert tokens.keys.shape[2:] == (heads.num_kv, heads.dim)


def _few(tokens: NewTokens) -> bool:
    return tokens.single and tokens.num_new <= MOST_ROWS


def _deepstack(
    deepstack: Deepstack | None, embeds: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Places [k] int64 and what each level adds there, [levels, k, hidden]."""
    if deepstack is None:
        return torch.empty(0, dtype=torch.int64), embeds.new_empty(0, 0, embeds.shape[1])
    places, slices = deepstack
    more = slices if isinstance(slices, torch.Tensor) else torch.stack(list(slices))
    assert places.dtype == torch.int64 and more.dtype == embeds.dtype
    assert more.shape[1:] == (len(places), embeds.shape[1])
    assert not len(places) or int(places.max()) < len(embeds)
    return places.contiguous(), more.contiguous()


def compiled_decoder(decoder: Any, kernels: Kernels) -> CompiledDecoder | None:
    """None where `decoder` is not exactly what the kernel computes."""
    return CompiledDecoder(decoder, kernels) if recognised(decoder) else None


def recognised(decoder: Any) -> bool:
    """Structure, configuration, shapes, and that nothing was hooked in."""
    expected = LAYERS.get(type(decoder).__name__)
    if expected is None or not type(decoder).__module__.startswith("transformers.models."):
        return False
    return (
        _configured(decoder.config)
        and all(_classes(layer) == expected for layer in decoder.layers)
        and not any(map(changed, decoder.modules()))
        and len({norm.eps for norm in _norms(decoder)} | {decoder.config.rms_norm_eps}) == 1
        and all(_shaped(layer, decoder.config) for layer in decoder.layers)
    )


def _configured(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        full = getattr(config, "sliding_window", None) is None
    else:
        full = set(kinds) == {"full_attention"}
    return full and config._attn_implementation == ATTENTION and config.hidden_act == "silu"


def _classes(layer: nn.Module) -> dict[str, str]:
    return {name: type(module).__name__ for name, module in layer.named_modules()}


def changed(module: nn.Module) -> bool:
    """Does a call of it do more than its class says?"""
    hooks = (module._forward_hooks, module._forward_pre_hooks, "forward" in vars(module))
    return any(hooks)


def _norms(decoder: Any) -> list[Any]:
    return [module for module in decoder.modules() if type(module).__name__ == "RmsNorm"]


def _shaped(layer: Any, config: Any) -> bool:
    """Whole vectors in a head, whole tiles in every product, and as wide as configured."""
    attention, inner = layer.self_attn, config.intermediate_size
    heads, kv_heads, dim = (
        config.num_attention_heads,
        config.num_key_value_heads,
        attention.head_dim,
    )
    wanted = (
        (config.hidden_size, (heads + 2 * kv_heads) * dim),
        (heads * dim, config.hidden_size),
        (config.hidden_size, 2 * inner),
        (inner, config.hidden_size),
    )
    found = tuple(
        None if streamed is None else (streamed.product.input, streamed.product.output)
        for streamed in (linear.streamed for linear in _linears(layer))
    )
    return found == wanted and not (dim % 16 or inner % TILE_OUT or heads % kv_heads)


def _linears(layer: Any) -> tuple[Any, Any, Any, Any]:
    attention, mlp = layer.self_attn, layer.mlp
    return attention.q_proj.linear, attention.o_proj, mlp.gate_up, mlp.down_proj


def _layer(layer: Any) -> Layer:
    streams: list[Streamed] = [linear.streamed for linear in _linears(layer)]
    qkv, o, gate_up, down = (streamed.product for streamed in streams)
    return Layer(
        input_norm=layer.input_layernorm.weight.data_ptr(),
        qkv=qkv,
        q_norm=_address(getattr(layer.self_attn, "q_norm", None)),
        k_norm=_address(getattr(layer.self_attn, "k_norm", None)),
        o=o,
        post_norm=layer.post_attention_layernorm.weight.data_ptr(),
        gate_up=gate_up,
        down=down,
    )


def _address(norm: Any) -> int | None:
    return None if norm is None else int(norm.weight.data_ptr())
