"""What each API makes of a completion."""

from epd.gateway.shapes.chat import ChatShape
from epd.gateway.shapes.shape import Event, Shape

__all__ = ["ChatShape", "Event", "Shape"]
