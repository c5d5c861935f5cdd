"""Who is there, who does what, and who owns which request: pure decisions of the gateway.

`Membership` is the table of workers, `Placement` picks among them, `Ownership` runs every request
from its first job to its last token. Events in, instructions out; no sockets, no clock.
"""

from epd.cluster.hearing import hear
from epd.cluster.instructions import Accepted, Emit, Failed, Opening, Tell
from epd.cluster.membership import Membership
from epd.cluster.ownership import Ownership
from epd.cluster.placement import Placement
from epd.cluster.requests import asked_as
from epd.cluster.submission import ItemJob, Submission

__all__ = [
    "Accepted",
    "Emit",
    "Failed",
    "ItemJob",
    "Membership",
    "Opening",
    "Ownership",
    "Placement",
    "Submission",
    "Tell",
    "asked_as",
    "hear",
]
