"""What can be seen of a running process: metrics and log lines. Opens no socket."""

from epd.observe.logs import setup
from epd.observe.metrics import Metrics
from epd.observe.reported import WorkerGauges

__all__ = ["Metrics", "WorkerGauges", "setup"]
