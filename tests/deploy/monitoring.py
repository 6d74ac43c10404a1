"""The queries of deploy/grafana and deploy/prometheus, read from their files."""

import json
import re
from pathlib import Path

import yaml

from orchestrator.cluster.exporter import EVALUATION, EXPORTED, PHASE, RUN, STAGE

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD, ALERTS = DEPLOY / "grafana" / "rayzero.json", DEPLOY / "prometheus" / "alerts.yml"
PREFIX = "ray_"
"""What Ray puts before the name of every metric of an application."""
KNOWN = {f"{PREFIX}{name}" for name in (*EXPORTED, *STAGE, *RUN, PHASE, EVALUATION)}


def panels() -> dict[str, list[str]]:
    """Title of a panel → its queries, as Grafana sends them when all runs are chosen."""
    dashboard = json.loads(DASHBOARD.read_text())
    return {
        panel["title"]: [target["expr"].replace("$run", ".*") for target in panel["targets"]]
        for panel in dashboard["panels"]
    }


def alerts() -> dict[str, str]:
    """Alert → its expression."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def metrics_in(query: str) -> set[str]:
    """Metrics of ours that a query names."""
    return set(re.findall(r"\b(?:ray_)?rayzero_\w+", query))
