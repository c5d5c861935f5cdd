"""Qwen3.5, with and without experts: refused, and why.

Their towers and prompts are those of Qwen3-VL without deepstack. But most of their layers are
GatedDeltaNet: what such a layer remembers of a sequence is one matrix that every token changes,
not keys and values per token. It has no blocks to share between prompts, to send range by range or
to compute again from the middle.
"""

from __future__ import annotations

REFUSED = dict.fromkeys(
    (
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5ForCausalLM",
        "Qwen3_5MoeForConditionalGeneration",
        "Qwen3_5MoeForCausalLM",
    ),
    "most of its layers (GatedDeltaNet, linear attention) keep one recurrent state per sequence,"
    " which does not fit a cache of keys and values in blocks",
)
"""Architecture -> what is in the way."""
