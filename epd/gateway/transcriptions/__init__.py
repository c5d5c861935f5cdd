"""OpenAI's /v1/audio/transcriptions, for models that listen."""

from epd.gateway.transcriptions.answer import TranscribedAnswer
from epd.gateway.transcriptions.reading import transcription

__all__ = ["TranscribedAnswer", "transcription"]
