"""From a request and a checkpoint's generation_config to parameters without defaults left.

As in Hugging Face's `generate()`: what the client says, else what the checkpoint says, else the
library's own default. A checkpoint that does not sample is greedy until the client sets a
temperature.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

from epd.errors import BadRequest, ConfigError
from epd.gateway.schemas import MAX_TOKENS, ChatRequest
from epd.models.spec import Checkpoint
from epd.types import SamplingParams

# The library's defaults where generation_config.json is silent.
_DEFAULTS = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 50,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "min_new_tokens": 0,
}

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
    max_tokens = request.most_tokens or MAX_TOKENS
    min_tokens = max(0, int(_first(request.min_tokens, defaults["min_new_tokens"])))
    seed = request.seed if request.seed is not None else random.getrandbits(63)
    return SamplingParams(
        n=request.n or 1,
        temperature=float(_first(request.temperature, defaults["temperature"])),
        top_p=float(_first(request.top_p, defaults["top_p"])),
        top_k=min(max(0, int(top_k)), checkpoint.vocab_size),
        min_p=float(_first(request.min_p, defaults["min_p"])),
        repetition_penalty=float(
            _first(request.repetition_penalty, defaults["repetition_penalty"])
        ),
        presence_penalty=float(request.presence_penalty or 0),
        frequency_penalty=float(request.frequency_penalty or 0),
        logit_bias=_logit_bias(request, checkpoint),
        seed=seed % 2**63,
        min_tokens=min(min_tokens, max_tokens),
        max_tokens=max_tokens,
        stop_token_ids=_stop_ids(request, checkpoint),
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        prompt_logprobs=request.prompt_logprobs,
        grammar=request.grammar[0],
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
    """All of the checkpoint's eos ids, unless they are to be ignored, and the client's own."""
    wanted = request.stop_token_ids or []
    _check_known(wanted, checkpoint, "stop_token_ids")
    eos = () if request.ignore_eos else checkpoint.eos_token_ids
    return tuple(dict.fromkeys((*eos, *wanted)))


def _logit_bias(request: ChatRequest, checkpoint: Checkpoint) -> tuple[tuple[int, float], ...]:
    wanted = {int(name): value for name, value in (request.logit_bias or {}).items()}
    _check_known(wanted, checkpoint, "logit_bias")
    return tuple(sorted(wanted.items()))


def _check_known(token_ids: Collection[int], checkpoint: Checkpoint, param: str) -> None:
    highest = max(token_ids, default=0)
    if highest >= checkpoint.vocab_size:
        raise BadRequest(
            f"{param}: {highest} is outside of the vocabulary ({checkpoint.vocab_size} tokens)",
            param=param,
        )


def _first(*values: Any) -> Any:
    """The first that was given."""
    return next(value for value in values if value is not None)
