"""Which attention backend computes a model."""

from __future__ import annotations

from typing import Any

from epd.attention import AttentionBackend, Wanted, choose, kernels
from epd.config.sections import LanguageConfig
from epd.engine.language import LanguageModel


def backend_for(model: LanguageModel, config: LanguageConfig) -> AttentionBackend[Any]:
    """The one that the configuration names, or the best for its device. ConfigError: none can."""
    device = model.device
    wanted = Wanted(
        device=device,
        dtype=model.dtype,
        head_dim=model.head_dim,
        block_size=config.block_size,
        capability=kernels.capability(device),
    )
    return choose(config.attention, wanted)
