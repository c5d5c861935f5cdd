"""From a request and a checkpoint's generation_config to parameters without defaults left.

As in Hugging Face's `generate()`: what the client says, else what the checkpoint says, else the
library's own default. A checkpoint that does not sample is greedy until the client sets a
temperature.
"""

from __future__ import annotations

import secrets
from typing import Any

from epd.errors import BadRequest, ConfigError
from epd.gateway.schemas import MAX_TOKENS, ChatRequest
from epd.models.spec import Checkpoint
from epd.types import SamplingParams

# The library's defaults where generation_config.json is silent.
_DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "top_k": 50, "repetition_penalty": 1.0}

# Settings of generate() that change answers and are not implemented, with their neutral values.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "bad_words_ids": ([],),
    "begin_suppress_tokens": ([],),
    "encoder_repetition_penalty": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1.0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "min_p": (0.0,),
    "no_repeat_ngram_size": (0,),
    "num_beams": (1,),
    "penalty_alpha": (0.0,),
    "sequence_bias": ({},),
    "suppress_tokens": ([],),
    "top_h": (),
    "typical_p": (1.0,),
}


def resolve(request: ChatRequest, checkpoint: Checkpoint) -> SamplingParams:
    """A seed is drawn where none is given. Without a limit, `max_tokens` is the largest number."""
    defaults = {
        name: value if (value := checkpoint.generation.get(name)) is not None else default
        for name, default in _DEFAULTS.items()
    }
    if not checkpoint.generation.get("do_sample"):
        defaults["temperature"] = 0.0
    top_k = _first(request.top_k, defaults["top_k"])
    seed = request.seed if request.seed is not None else secrets.randbits(63)
    return SamplingParams(
        temperature=float(_first(request.temperature, defaults["temperature"])),
        top_p=float(_first(request.top_p, defaults["top_p"])),
        top_k=min(max(0, int(top_k)), checkpoint.vocab_size),
        repetition_penalty=float(
            _first(request.repetition_penalty, defaults["repetition_penalty"])
        ),
        seed=seed % 2**63,
        max_tokens=_first(request.max_completion_tokens, request.max_tokens, MAX_TOKENS),
        stop_token_ids=_stop_ids(request, checkpoint),
    )


def check_defaults(checkpoint: Checkpoint) -> list[str]:
    """Settings of the checkpoint's generation_config that answers will not follow.

    ConfigError where a setting that is followed has no usable value.
    """
    for name in _DEFAULTS:
        value = checkpoint.generation.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(f"generation_config.json: {name} is {value!r}, not a number")
    return sorted(
        name
        for name, neutral in _UNSUPPORTED.items()
        if (value := checkpoint.generation.get(name)) is not None and value not in neutral
    )


def _stop_ids(request: ChatRequest, checkpoint: Checkpoint) -> tuple[int, ...]:
    """All of the checkpoint's eos ids and the client's own."""
    wanted = request.stop_token_ids or []
    if wanted and max(wanted) >= checkpoint.vocab_size:
        raise BadRequest(
            f"stop_token_ids: {max(wanted)} is outside of the vocabulary "
            f"({checkpoint.vocab_size} tokens)",
            param="stop_token_ids",
        )
    return tuple(dict.fromkeys((*checkpoint.eos_token_ids, *wanted)))


def _first(*values: Any) -> Any:
    """The first that was given."""
    return next(value for value in values if value is not None)
