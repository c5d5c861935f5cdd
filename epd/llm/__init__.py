"""The offline engine: `LLM` for batches, `serve` for a cluster that a program holds in its hand.

Both start processes of `epd serve` and talk HTTP to them. Nothing here computes anything.
"""

from epd.llm.llm import LLM
from epd.llm.outputs import CompletionOutput, Logprob, RequestOutput
from epd.llm.params import SamplingParams
from epd.llm.server import Server
from epd.llm.serving import serve

__all__ = [
    "LLM",
    "CompletionOutput",
    "Logprob",
    "RequestOutput",
    "SamplingParams",
    "Server",
    "serve",
]
