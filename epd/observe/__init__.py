"""What can be seen of a running process: metrics, log lines, traces. Opens no socket."""

from epd.observe.logs import setup
from epd.observe.metrics import Metrics
from epd.observe.path import Path
from epd.observe.reported import WorkerGauges
from epd.observe.shown import shown
from epd.observe.traces import PassedOn, Traces, open_traces

__all__ = ["Metrics", "PassedOn", "Path", "Traces", "WorkerGauges", "open_traces", "setup", "shown"]
