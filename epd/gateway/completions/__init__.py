"""OpenAI's /v1/completions: prompts as they are written."""

from epd.gateway.completions.reading import completions
from epd.gateway.completions.schemas import CompletionRequest

__all__ = ["CompletionRequest", "completions"]
