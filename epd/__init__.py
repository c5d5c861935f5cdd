"""epd: encode, prefill and decode of multimodal language models as separate stages."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epd.llm import LLM, CompletionOutput, Logprob, RequestOutput, SamplingParams, Server, serve

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "CompletionOutput",
    "Logprob",
    "RequestOutput",
    "SamplingParams",
    "Server",
    "__version__",
    "serve",
]


def __getattr__(name: str) -> Any:
    """The offline engine's names. Every room imports this module, so it imports none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("epd.llm"), name)
