"""Dashboards, rules and scalers name only what epd exports, and every alert has its page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from epd.types import Activity, Stage
from epd.wire.inbox import Inbox
from launch.monitoring.__main__ import HERE, files
from launch.monitoring.dashboard import dashboard
from launch.monitoring.rules import ALERTS, RECORDS, RUNBOOK
from tests.deploy.exported import LINKS, exported
from tests.deploy.overlays import ROOT, of_kind
from tests.deploy.promql import names

RUNBOOKS = ROOT / "docs" / "runbook"


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in dashboard()["panels"] if panel["type"] != "row")


def expressions() -> dict[str, str]:
    """Where it stands, and what it says."""
    found = {record.name: record.expr for record in RECORDS}
    found |= {alert.name: alert.expr for alert in ALERTS}
    for panel in panels():
        for target in panel["targets"]:
            found[f"panel {panel['id']} {panel['title']} {target['refId']}"] = target["expr"]
    for one in of_kind("NENPND-keda", "ScaledObject"):
        for trigger in one["spec"]["triggers"]:
            found[f"keda {one['metadata']['name']}"] = trigger["metadata"]["query"]
    for rule in adapter_rules():
        found[f"adapter {rule['name']['as']}"] = rule["metricsQuery"]
    return found


def adapter_rules() -> list[dict[str, Any]]:
    [found] = [o for o in of_kind("NENPND-hpa", "ConfigMap") if "config.yaml" in o["data"]]
    return list(yaml.safe_load(found["data"]["config.yaml"])["externalRules"])


def wrong(expr: str) -> list[str]:
    """What it names that epd does not have."""
    known, named = exported(), names(expr)
    found = [f"metric {name}" for name in named.metrics if name not in known]
    labels = frozenset[str]().union(*(known.get(name, frozenset()) for name in named.metrics))
    for name, matched in named.metrics.items():
        found += [f"label {label} of {name}" for label in matched - known.get(name, matched)]
    return found + [f"label {label}" for label in named.groupings - labels]


@pytest.mark.parametrize(("place", "expr"), expressions().items(), ids=list(expressions()))
def test_every_expression_names_metrics_and_labels_that_epd_exports(place: str, expr: str) -> None:
    assert wrong(expr) == []


@pytest.mark.parametrize(
    ("expr", "found"),
    [
        ("sum(rate(epd_request_total[5m]))", ["metric epd_request_total"]),
        ("sum(rate(epd_requests_total[5m])) by (code)", ["label code"]),
        ('epd_requests_total{code="200"}', ["label code of epd_requests_total"]),
        ("epd_first_token_seconds", ["metric epd_first_token_seconds"]),
        ("epd_worker_kv_used", ["metric epd_worker_kv_used"]),
    ],
)
def test_a_wrong_one_is_found(expr: str, found: list[str]) -> None:
    """Negative controls."""
    assert wrong(expr) == found


def test_stages_and_activities_that_are_chosen_exist() -> None:
    values = {"activity": set(Activity), "stage": {*Stage, "prefill+decode"}}
    for expr in expressions().values():
        for label, operator, text in re.findall(r'(activity|stage)(=~|!=|=)"([^"]*)"', expr):
            if operator == "=~":
                assert any(re.fullmatch(text, value) for value in values[label]), expr
            else:
                assert text in values[label], expr


def test_every_label_in_a_legend_is_one_of_its_expression() -> None:
    known = exported()
    for panel in panels():
        for target in panel["targets"]:
            named = names(target["expr"])
            labels = named.groupings.union(*(known[name] for name in named.metrics))
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels


def test_links_count_what_the_rules_think_they_do() -> None:
    """Their names come from the links themselves."""
    from epd.wire.inproc_links import Hub, InprocLinks

    links = InprocLinks("encode-0", Hub(), Inbox(capacity=1))
    assert {f"links_{name}" for name in links.counters()} == set(LINKS)


def test_a_rule_uses_no_record_that_comes_after_it() -> None:
    seen = set[str]()
    for record in RECORDS:
        used = {name for name in names(record.expr).metrics if name.startswith("epd:")}
        assert used <= seen
        seen.add(record.name)


def test_every_alert_and_record_is_tried_on_series_made_up_for_it() -> None:
    """`make deploy-check` evaluates them; those that scale and page are all there."""
    text = (HERE / "rules.test.yaml").read_text()
    for alert in ALERTS:
        assert f'alertname="{alert.name}", alertstate="firing"' in text
    for record in RECORDS:
        if record.name.endswith(":sum"):
            assert f"expr: {record.name}\n" in text


def test_the_files_are_in_step_with_the_code() -> None:
    """Otherwise: python -m launch.monitoring"""
    for name, text in files().items():
        assert (HERE / name).read_text() == text, name


def test_every_autoscaler_asks_for_a_metric_that_the_adapter_has() -> None:
    had = {rule["name"]["as"] for rule in adapter_rules()}
    asked = {
        metric["external"]["metric"]["name"]
        for one in of_kind("NENPND-hpa", "HorizontalPodAutoscaler")
        for metric in one["spec"]["metrics"]
    }
    assert asked == had


@pytest.mark.parametrize("alert", [alert.name for alert in ALERTS])
def test_every_alert_has_a_page_that_says_what_to_do(alert: str) -> None:
    page = ROOT / RUNBOOK.format(alert=alert)
    text = page.read_text()
    assert text.startswith(f"# {alert}\n")
    for title in ("## What it means", "## Look at", "## Do"):
        assert f"\n{title}\n" in text
    for name in re.findall(r"`(epd[_:]\w[\w:]*)", text):
        assert name in known_words(), name


def known_words() -> set[str]:
    """Series, and families without the suffixes of their series."""
    return set(exported()) | {re.sub("_(bucket|sum|count|total)$", "", name) for name in exported()}


def test_no_page_is_left_of_an_alert_that_is_gone() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("Epd*.md")}
    assert pages == {alert.name for alert in ALERTS}


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))


def test_the_pod_monitor_shows_the_key_that_opens_metrics() -> None:
    [monitor] = of_kind("NENPND-hpa", "PodMonitor")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["authorization"]["credentials"] == {"name": "epd-admin", "key": "key"}
    assert Path(HERE / "kustomization.yaml").is_file()
