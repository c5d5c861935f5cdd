"""Who is there, who does what, and who owns which request: pure decisions of the gateway.

`Membership` is the table of workers, `Placement` picks among them, `Ownership` runs every request
from its first job to its last token. Events in, instructions out; no sockets, no clock.
"""

from epd.cluster.membership import Membership
from epd.cluster.ownership import Accepted, Emit, Failed, ItemJob, Ownership, Submission, Tell
from epd.cluster.placement import Placement

__all__ = [
    "Accepted",
    "Emit",
    "Failed",
    "ItemJob",
    "Membership",
    "Ownership",
    "Placement",
    "Submission",
    "Tell",
]
