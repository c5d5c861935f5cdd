"""Writes the files that Prometheus and Grafana read: python -m launch.monitoring"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from launch.monitoring.dashboard import dashboard
from launch.monitoring.rules import groups

HERE = Path(__file__).parent
HEAD = "# Made by `python -m launch.monitoring`.\n"


def files() -> dict[str, str]:
    """Name to text."""
    operator = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "epd", "labels": {"app.kubernetes.io/name": "epd"}},
        "spec": {"groups": groups()},
    }
    return {
        "dashboard.json": json.dumps(dashboard(), indent=1) + "\n",
        "rules.yaml": HEAD + _yaml({"groups": groups()}),
        "prometheusrule.yaml": HEAD + _yaml(operator),
    }


def _yaml(value: dict[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=1000)


if __name__ == "__main__":
    for name, text in files().items():
        (HERE / name).write_text(text)
