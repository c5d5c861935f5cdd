"""docs/metrics.md, made of the registry: python -m epd.observe.page > docs/metrics.md"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from prometheus_client.core import Metric

from epd.observe.metrics import Metrics
from epd.observe.reported import GAUGES

_HEAD = """\
# Metrics

`GET /metrics` of a gateway, in Prometheus' text format. This page is made from the registry:
`python -m epd.observe.page > docs/metrics.md`.

Labels have few values, all of them epd's own words: `stage` is `encode`, `prefill` or `decode`
(`prefill+decode` for what a fused worker reports), `modality` an item's, or for a whole request
its items' (`text` without any, `mixed` with several), `worker` the name that the operator gave.
Nothing that a client wrote becomes a label. With several gateways each counts its own requests;
what workers report is the same at all of them.

What each activity of `epd_activity_seconds` is, and what one request took of it, stands in
[requests.md](requests.md#the-path-of-a-request).

## Counted by the gateway

"""
_WORKERS = """
## Reported by workers

With every heartbeat, as `epd_worker_NAME` with the labels `worker` and `stage`. Times are
milliseconds, sizes bytes. A worker that is gone takes its series along.

"""
_LINKS = """
Beside these each worker reports what its links counted, as `epd_worker_links_sent`, `_received`,
both with `_bytes`, and `_dropped_REASON`.
"""
_LIKE_VLLM = """
`epd_num_requests_waiting`, `epd_num_requests_running` and `epd_kv_cache_usage_perc` mean what
vLLM's gauges of these names mean, so dashboards can be carried over. `epd_item_rows` with the
origins `cache`, `shared` and `kv` counts cache hits; `epd_worker_row_bytes_held` of
`epd_worker_credit_bytes` is how much of its credits a prefill worker has given out.
"""


def page() -> str:
    """The whole text."""
    metrics = Metrics()
    rows = [_row(family, metrics.labels[family.name]) for family in metrics.families()]
    table = _table(("name", "kind", "labels", "what it counts"), sorted(rows))
    reported = _table(("NAME", "what it is"), [(f"`{n}`", t) for n, t in sorted(GAUGES.items())])
    return _HEAD + table + _LIKE_VLLM + _WORKERS + reported + _LINKS


def _row(family: Metric, names: Iterable[str]) -> tuple[str, ...]:
    name = family.name + ("_total" if family.type == "counter" else "")
    labels = ", ".join(f"`{label}`" for label in names)
    return (f"`{name}`", family.type, labels, family.documentation)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(page())
