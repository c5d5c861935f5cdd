"""What a gateway exports: every series' name with its labels, taken from epd's own registry."""

from __future__ import annotations

from epd.observe import Metrics
from epd.observe.reported import GAUGES
from launch.monitoring.rules import RECORDS

WORKER = frozenset({"worker", "stage"})
LINKS = ("links_sent", "links_received", "links_sent_bytes", "links_received_bytes")


def exported() -> dict[str, frozenset[str]]:
    """Those of rules too, which make new ones."""
    metrics = Metrics()
    found: dict[str, frozenset[str]] = {}
    for family in metrics.families():
        labels = frozenset(metrics.labels[family.name])
        if family.type == "counter":
            found[f"{family.name}_total"] = labels
        elif family.type == "histogram":
            found[f"{family.name}_bucket"] = labels | {"le"}
            found[f"{family.name}_sum"] = found[f"{family.name}_count"] = labels
        else:
            found[family.name] = labels
    found.update({f"epd_worker_{name}": WORKER for name in (*GAUGES, *LINKS)})
    found.update({record.name: frozenset(record.labels) for record in RECORDS})
    return found
