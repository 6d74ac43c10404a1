"""Dashboard and alerts: they name metrics that a run exports, and the alerts fire when they should and then alone."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.monitoring import ALERTS, DASHBOARD, KNOWN, alerts, metrics_in, panels

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian package prometheus)"
)
RUN = 'run="r"'
STAGE = 'run="r", stage="s"'
MINUTES = 40


def test_every_query_names_metrics_that_a_run_exports() -> None:
    queries = [query for each in panels().values() for query in each] + list(alerts().values())
    assert len(queries) > 30
    for query in queries:
        assert metrics_in(query), query
        assert metrics_in(query) <= KNOWN, query


def test_panels_stand_beside_each_other_and_in_the_grid() -> None:
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    cells = {
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    }
    assert len(cells) == sum(place["w"] * place["h"] for place in places), "two panels overlap"
    assert max(x for x, _ in cells) < 24


def fired(folder: Path, series: dict[str, str]) -> set[str]:
    """Alerts that fire after 40 minutes of these series, a value a minute, as promtool reckons."""
    shutil.copy(ALERTS, folder / "alerts.yml")
    case: dict[str, Any] = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                # As if none fired: what does is told.
                "alert_rule_test": [
                    {"eval_time": f"{MINUTES}m", "alertname": alert, "exp_alerts": []} for alert in alerts()
                ],
            }
        ],
    }
    (folder / "case.yml").write_text(yaml.safe_dump(case))
    answer = subprocess.run(
        ["promtool", "test", "rules", "case.yml"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    said = answer.stdout + answer.stderr
    found = set(re.findall(r"alertname: (\w+)", said))
    assert bool(found) == bool(answer.returncode), said
    return found


def steady(value: float) -> str:
    return f"{value}x{MINUTES + 5}"


HEALTHY = {
    f"ray_rayzero_heartbeat_timestamp_seconds{{{RUN}}}": f"0+60x{MINUTES + 5}",
    f"ray_rayzero_progress_timestamp_seconds{{{RUN}}}": f"0+60x{MINUTES + 5}",
    f"ray_rayzero_stage_running{{{STAGE}}}": steady(1),
    f"ray_rayzero_step_seconds{{{STAGE}}}": steady(60),
    f"ray_rayzero_reward_error_share{{{STAGE}}}": steady(0),
    f"ray_rayzero_reward_timeout_share{{{STAGE}}}": steady(0),
    f"ray_rayzero_groups_taken{{{STAGE}}}": f"0+48x{MINUTES + 5}",
    f"ray_rayzero_groups_dropped_stale{{{STAGE}}}": steady(0),
    f"ray_rayzero_staleness_max{{{STAGE}}}": steady(2),
    f"ray_rayzero_staleness_limit{{{STAGE}}}": steady(2),
    f"ray_rayzero_replicas_away{{{RUN}}}": steady(0),
    f"ray_rayzero_reward_workers_down{{{RUN}}}": steady(0),
}


@needs_promtool
@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, set()),
        ({"progress_timestamp_seconds": steady(60)}, {"RayZeroStalled"}),
        # A step of ten minutes may take a hundred.
        ({"progress_timestamp_seconds": steady(60), "step_seconds": steady(600)}, set()),
        # Of a stage that has ended nothing is said: its length is not that of the stage which goes on.
        (
            {"progress_timestamp_seconds": steady(60), "step_seconds": steady(600), "stage_running": steady(0)},
            {"RayZeroStalled"},
        ),
        (
            {"heartbeat_timestamp_seconds": steady(60), "progress_timestamp_seconds": steady(60)},
            {"RayZeroSilent", "RayZeroStalled"},
        ),
        ({"reward_error_share": steady(0.02)}, {"RayZeroRewardErrors"}),
        ({"reward_error_share": steady(0.02), "stage_running": steady(0)}, set()),
        ({"reward_timeout_share": steady(0.2)}, {"RayZeroRewardTimeouts"}),
        ({"groups_dropped_stale": f"0+8x{MINUTES + 5}"}, {"RayZeroStale"}),
        ({"groups_dropped_stale": f"0+2x{MINUTES + 5}"}, set()),
        ({"staleness_max": steady(3)}, {"RayZeroStalenessBound"}),
        ({"replicas_away": steady(1)}, {"RayZeroReplicaAway"}),
        ({"reward_workers_down": steady(1)}, {"RayZeroRewardWorkersDown"}),
    ],
)
def test_alerts_fire_when_they_should(tmp_path: Path, changed: dict[str, str], expected: set[str]) -> None:
    series = {}
    for name, values in HEALTHY.items():
        short = name.removeprefix("ray_rayzero_").partition("{")[0]
        series[name] = changed.get(short, values)
    assert fired(tmp_path, series) == expected


@needs_promtool
def test_promtool_takes_the_files() -> None:
    for words in (("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml")):
        answer = subprocess.run(
            ["promtool", *words], cwd=ALERTS.parent, capture_output=True, text=True, timeout=60, check=False
        )
        assert answer.returncode == 0, answer.stderr
