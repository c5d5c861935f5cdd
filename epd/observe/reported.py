"""Numbers that others count and report whole: workers their gauges, links their totals."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAX_GAUGES = 64


class WorkerGauges(Collector):
    """The gauges that workers report, as epd_worker_<name>{worker, stage}."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: dict[str, tuple[str, dict[str, int]]] = {}

    def report(self, worker: str, stage: str, gauges: Mapping[str, int]) -> None:
        """Replace what this worker said before. Names that are none, and more than 64, are left."""
        good = [name for name in gauges if _NAME.fullmatch(name)][:_MAX_GAUGES]
        with self._lock:
            self._reports[worker] = (stage, {name: gauges[name] for name in good})

    def forget(self, worker: str) -> None:
        """The worker is gone, and so are its series."""
        with self._lock:
            self._reports.pop(worker, None)

    def describe(self) -> Iterable[Metric]:
        """Nothing is known in advance."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """One family per gauge name."""
        with self._lock:
            reports = sorted(self._reports.items())
        families: dict[str, GaugeMetricFamily] = {}
        for worker, (stage, gauges) in reports:
            for name, value in gauges.items():
                if name not in families:
                    families[name] = GaugeMetricFamily(
                        f"epd_worker_{name}", "reported by the worker", labels=("worker", "stage")
                    )
                families[name].add_metric((worker, stage), value)
        return [families[name] for name in sorted(families)]


class LinkCounters(Collector):
    """Totals of the gateway's links: sent, received, the same with _bytes, and dropped_REASON."""

    def __init__(self) -> None:
        self._totals: Mapping[str, int] = {}

    def report(self, totals: Mapping[str, int]) -> None:
        """Replace the totals."""
        self._totals = dict(totals)

    def describe(self) -> Iterable[Metric]:
        """Nothing is known in advance."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Messages and bytes by direction, dropped messages by reason."""
        messages = CounterMetricFamily("epd_messages", "messages on the wire", labels=("way",))
        sizes = CounterMetricFamily("epd_message_bytes", "bytes on the wire", labels=("way",))
        dropped = CounterMetricFamily(
            "epd_dropped_messages", "messages that were not acted on", labels=("reason",)
        )
        for name, total in sorted(self._totals.items()):
            if name.startswith("dropped_"):
                dropped.add_metric((name.removeprefix("dropped_"),), total)
            elif name.endswith("_bytes"):
                sizes.add_metric((name.removesuffix("_bytes"),), total)
            else:
                messages.add_metric((name,), total)
        return (messages, sizes, dropped)
