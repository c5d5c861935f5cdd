"""Qwen3-VL with experts: the tower and the prompt of the dense models, other layers behind them."""

from __future__ import annotations

from dataclasses import replace

from epd.models.families.qwen3_vl import FAMILY as DENSE
from epd.models.families.qwen3_vl import Qwen3VL


class Qwen3VLMoe(Qwen3VL):
    """Adapter of Qwen3VLMoeForConditionalGeneration."""


FAMILY = replace(
    DENSE,
    name="qwen3_vl_moe",
    architectures=("Qwen3VLMoeForConditionalGeneration",),
    adapter=Qwen3VLMoe,
)
