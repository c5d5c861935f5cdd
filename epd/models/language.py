"""The prefill and decode workers' half of a model: embeddings, layers and head, no towers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from epd.attention.row_writes import Deepstack, WriteRows, adder
from epd.models.adapter import Adapter
from epd.models.block_products import compile_products, keeps_blocks
from epd.models.compiled.decoder import compiled_decoder
from epd.models.compiled.kernels import Kernels, load_kernels
from epd.models.compiled.screened import screened
from epd.models.fused import fuse
from epd.models.group import Group
from epd.models.heard import refuse_unheard
from epd.models.leaves import replace_leaves, weight_bytes
from epd.models.partial import load_part
from epd.models.positions import prompt_positions
from epd.models.shards import Shards
from epd.models.spec import Checkpoint
from epd.models.torchvision_shim import prepare_torchvision
from epd.types import Prompt


class LanguageModel:
    """transformers' layers over a packed batch, with our attention inside. Step thread only.

    T counts the tokens of all sequences of a step, laid end to end. Nothing here waits for the
    device. Weights ask for no gradient, so results are ordinary tensors that may be changed.

    One rank of several has its part of the KV heads and, where the vocabulary can be divided, of
    the logits; hidden states are whole. `embed` is rank 0's.
    """

    def __init__(
        self,
        adapter: Adapter,
        model: Any,
        kernels: Kernels | None = None,
        group: Group | None = None,
    ) -> None:
        self._decoder: Any = adapter.decoder(model)
        self._compiled = None if kernels is None else compiled_decoder(self._decoder, kernels)
        self._head = adapter.head(model)
        self._screened = screened(self._head)
        self._embedding = self._decoder.get_input_embeddings()
        config = self._decoder.config
        self._axes = 3 if adapter.checkpoint.spec.rotary == "mrope" else 1
        self.num_layers: int = config.num_hidden_layers
        self.hidden_size: int = config.hidden_size
        self.deepstack_levels = adapter.deepstack_levels
        for level in range(self.deepstack_levels):
            after = partial(_add_level, level, adder(self._embedding.weight.device))
            self._decoder.layers[level].register_forward_hook(after, with_kwargs=True)
        self.vocab_size: int = config.vocab_size
        ranks = 1 if group is None else group.size
        self.kv_heads: int = config.num_key_value_heads // ranks
        heads: int = config.num_attention_heads
        self.head_dim: int = getattr(config, "head_dim", None) or self.hidden_size // heads
        self.dtype: torch.dtype = self._embedding.weight.dtype
        self.device: torch.device = self._embedding.weight.device
        screen = 0 if self._screened is None else self._screened.nbytes
        self.weight_bytes = weight_bytes(model) + screen

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """[T] int64 on the device -> [T, hidden]."""
        embeds: torch.Tensor = self._embedding(ids)
        return embeds

    def forward(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        plan: Any,
        deepstack: Deepstack | None = None,
    ) -> torch.Tensor:
        """[T, hidden] and [3, T] or [T] on the device -> last hidden states [T, hidden].

        `plan` reaches the attention function of every layer; keys and values go where it says.
        `deepstack`: the places [k] of rows, and what each level adds there, [k, hidden] each.
        """
        assert deepstack is None or len(deepstack[1]) == self.deepstack_levels
        batched = positions[:, None] if positions.dim() == 2 else positions[None]
        if self._compiled is not None:
            tokens = plan.new_tokens()
            if self._compiled.takes(tokens, deepstack):
                return self._compiled.forward(embeds, batched, tokens, deepstack)
        hidden: torch.Tensor = self._decoder(
            inputs_embeds=embeds[None],
            position_ids=batched,
            attention_mask=None,
            past_key_values=None,
            use_cache=False,
            plan=plan,
            deepstack=deepstack,
        ).last_hidden_state
        return hidden[0]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, hidden] -> [N, vocab] in the model's dtype, for the rows that are sampled from."""
        logits: torch.Tensor = self._head(hidden)
        return logits

    def likeliest(self, hidden: torch.Tensor) -> torch.Tensor | None:
        """[N, hidden] -> [N] int64: where the logits of each row are largest, first of equals.

        -1 where they are not finite. None: find out from the logits.
        """
        if self._screened is None or not self._screened.takes(hidden):
            return None
        return self._screened.likeliest(hidden)

    def positions(self, prompt: Prompt) -> tuple[torch.Tensor, float]:
        """Rotary positions of a prompt, [3, T] or [T] float64 on the CPU, from layouts alone.

        With the delta: the token at index i >= T of the sequence stands at position i + delta.
        """
        return prompt_positions(prompt, axes=self._axes)


def _add_level(
    level: int, add: WriteRows, layer: Any, args: Any, kwargs: dict[str, Any], hidden: torch.Tensor
) -> None:
    """Runs after a decoder layer: adds this level's slices to the layer's output, in place.

    transformers' own way takes a mask over the sequence, and looks for its places again after
    every layer, which waits for the device. Here the places come as numbers; like the plan they
    reach the layers as a keyword argument, so the model holds nothing of a step. The output is a
    sum that nothing else refers to.
    """
    if (deepstack := kwargs["deepstack"]) is not None:
        places, slices = deepstack
        add(hidden[0], places, slices[level])


def load_language(
    checkpoint: Checkpoint,
    *,
    device: str,
    dtype: str,
    cache: Path | None = None,
    fused: bool = True,
    group: Group | None = None,
) -> LanguageModel:
    """Read the language model and nothing else. `device` and `dtype` are resolved.

    `cache`: where compiled decoder layers are kept; without it none are compiled. `fused`: on a
    CUDA device, with joint products and kernels of ours in place of transformers' small modules.
    `group`: load one rank's part, which is not compiled; what is joined are its parts alone.
    Weights in FP8 stay so where their kernel can run; the log says which.
    """
    from epd.attention import ATTENTION, register

    prepare_torchvision()
    register()
    adapter = checkpoint.adapter()
    shards = None if group is None else Shards(adapter, group)
    small = keeps_blocks(checkpoint, device, dtype, fused=fused)
    model = load_part(
        checkpoint,
        adapter.language_parts(),
        device=device,
        dtype=dtype,
        shards=shards,
        keep_blocks=small,
    )
    decoder = adapter.decoder(model)
    refuse_unheard(decoder, str(checkpoint.path))
    decoder.config._attn_implementation = ATTENTION
    if shards is not None:
        shards.install(model)
        cache = None  # what is compiled computes whole layers
    compiled = cache is not None and device == "cpu" and dtype == "bfloat16"
    kernels = load_kernels(cache) if cache is not None and compiled else None
    replace_leaves(model, single_rows=True, kernels=kernels)
    if fused and device != "cpu":
        fuse(model, decoder)
    if small:
        compile_products(model, getattr(torch, dtype))
    return LanguageModel(adapter, model, kernels, group)
