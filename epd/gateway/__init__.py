"""The HTTP front: OpenAI's API over a Service. No torch, no media decoding."""

from epd.gateway.app import create_app
from epd.gateway.front import Front
from epd.gateway.service import Call, CallSpec, Service

__all__ = ["Call", "CallSpec", "Front", "Service", "create_app"]
