"""/v1/responses, as the Open Responses specification has it."""

from epd.gateway.responses.elsewhere import Elsewhere
from epd.gateway.responses.responses import Responses

__all__ = ["Elsewhere", "Responses"]
