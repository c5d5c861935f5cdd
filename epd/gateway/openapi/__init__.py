"""What the HTTP surface is, as an OpenAPI document and as a page."""

from epd.gateway.openapi.document import describe
from epd.gateway.openapi.page import show

__all__ = ["describe", "show"]
