"""Models whose weights stay in FP8, on a CPU, and what they say."""

from __future__ import annotations

import torch

from epd.attention import ATTENTION, PagedBatch, PagedSequence, SdpaBackend, register
from epd.models.fused import fuse
from epd.models.language import LanguageModel
from epd.models.partial import load_part
from epd.models.spec import Checkpoint
from epd.models.torchvision_shim import prepare_torchvision


def load(checkpoint: Checkpoint, *, keep: bool, dtype: str = "float32") -> LanguageModel:
    """As a worker with a card loads it, but onto the CPU."""
    prepare_torchvision()
    register()
    adapter = checkpoint.adapter()
    parts = adapter.language_parts()
    model = load_part(checkpoint, parts, device="cpu", dtype=dtype, keep_blocks=keep)
    decoder = adapter.decoder(model)
    decoder.config._attn_implementation = ATTENTION
    if keep:
        fuse(model, decoder)
    return LanguageModel(adapter, model)


@torch.inference_mode()
def greedy(model: LanguageModel, prompt: list[int], steps: int) -> tuple[list[int], torch.Tensor]:
    """Tokens, and the logits of the first."""
    shape = (model.num_layers, 16 * 16, model.kv_heads, model.head_dim)
    keys, values = torch.zeros((2, *shape), dtype=model.dtype, device=model.device)
    blocks = list(range(-(-(len(prompt) + steps) // 16)))
    tokens, done, first = list(prompt), 0, torch.empty(0)
    for _ in range(steps):
        num = len(tokens) - done
        batch = PagedBatch((PagedSequence(num, len(tokens), blocks),), keys, values, 16)
        at = torch.arange(done, len(tokens), device=model.device).double()
        ids = torch.tensor(tokens[done:], device=model.device)
        hidden = model.forward(model.embed(ids), at.expand(3, -1), SdpaBackend().bind(batch))
        logits = model.logits(hidden[-1:])[0].float().cpu()
        first = first if first.numel() else logits
        done = len(tokens)
        tokens.append(int(logits.argmax()))
    return tokens[len(prompt) :], first
