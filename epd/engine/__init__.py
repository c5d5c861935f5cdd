"""The language engine: paged KV, scheduling, sampling. Knows no sockets."""

from epd.engine.embeddings import MultiModalEmbeddingData
from epd.engine.engine import Engine
from epd.engine.request import EngineRequest, Role, StepResult

__all__ = ["Engine", "EngineRequest", "MultiModalEmbeddingData", "Role", "StepResult"]
