"""A real Prometheus scrapes a real run: every query of the dashboard and of the alerts is asked of it while the run goes on.

Besides, what the run says of itself meanwhile in its folder.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.run.state import read_state
from tests.deploy.monitoring import ALERTS, alerts, metrics_in, panels

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Prometheus is not installed (Debian package prometheus)"
)
SMALL = (
    "model.build.layers=1",
    "model.build.hidden=32",
    "model.build.heads=1",
    "model.build.kv_heads=1",
    "model.build.intermediate=32",
    "rollout.max_tokens=16",
    "rollout.group_size=4",
    "loop.groups_per_step=4",
    "stages.cold-start.loop.steps=4",
    # More than are waited for: the run is ended when every query has been answered.
    "stages.reasoning.loop.steps=2000",
    "stages.reasoning.loop.eval_every=2",
    "eval.sets.held-out.limit=4",
    "learner.kl_coef=0.001",
)
DEADLINE_S = 300


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Prometheus:
    """The server, asked as Grafana asks it."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/"

    def get(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self._url}{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            body = json.load(answer)
        assert body["status"] == "success", body
        return body["data"]

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Series that a query finds now."""
        return list(self.get("query", query=query)["result"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A run that goes on, and the port of its metrics."""
    folder, port = tmp_path_factory.mktemp("watched"), free_port()
    command = [sys.executable, "-m", "orchestrator", "train", "arithmetic", "--run", str(folder / "run"), *SMALL]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"cluster.metrics_port={port}"], stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        until = time.monotonic() + DEADLINE_S
        while read_state(folder / "run").get("progress", {}).get("done", 0) < 3 or stage_of(folder) != "reasoning":
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < until, "the run has not begun its loop in time"
            time.sleep(0.5)
        yield folder / "run", port
    finally:
        process.terminate()
        process.wait(60)


def stage_of(folder: Path) -> str:
    return str(read_state(folder / "run").get("stage", ""))


@pytest.fixture(scope="module")
def prometheus(run: tuple[Path, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    shutil.copy(ALERTS, folder / "alerts.yml")
    text = (ALERTS.parent / "prometheus.yml").read_text()
    assert "127.0.0.1:9460" in text
    text = re.sub(r"_interval: \d+s", "_interval: 1s", text.replace("127.0.0.1:9460", f"127.0.0.1:{run[1]}"))
    (folder / "prometheus.yml").write_text(text)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    server = Prometheus(port)
    try:
        until = time.monotonic() + 60
        while True:
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < until, "Prometheus has no series of the run in time"
            try:
                if server.ask("ray_rayzero_step") and server.ask("ray_rayzero_evaluation_share"):
                    break
            except OSError:
                pass  # it does not listen yet
            time.sleep(0.5)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def test_every_panel_of_the_dashboard_has_something_to_show(prometheus: Prometheus) -> None:
    empty = {title: query for title, queries in panels().items() for query in queries if not prometheus.ask(query)}
    assert not empty
    (step,) = prometheus.ask("ray_rayzero_step and on (run, stage) ray_rayzero_stage_running == 1")
    assert step["metric"]["run"] == "run"
    assert step["metric"]["stage"] == "reasoning"
    assert float(step["value"][1]) >= 1


def test_every_alert_is_reckoned_from_series_that_are_there_and_none_fires(prometheus: Prometheus) -> None:
    for metric in {name for query in alerts().values() for name in metrics_in(query)}:
        # Nothing has been dropped as too old, so nobody has counted it.
        assert prometheus.ask(metric) or metric == "ray_rayzero_groups_dropped_stale", metric
    until = time.monotonic() + 30
    rules = prometheus.get("rules")["groups"][0]["rules"]
    while any(rule["health"] == "unknown" for rule in rules) and time.monotonic() < until:
        time.sleep(0.5)
        rules = prometheus.get("rules")["groups"][0]["rules"]
    assert {rule["name"] for rule in rules} == set(alerts())
    assert {rule["health"] for rule in rules} == {"ok"}, rules
    assert {rule["name"] for rule in rules if rule["state"] != "inactive"} == set()


def test_the_run_tells_what_it_is_doing(run: tuple[Path, int]) -> None:
    state = read_state(run[0])
    assert state["stage"] == "reasoning"
    assert set(state["queues"]) == {"in_flight", "waiting", "to_score"}
    assert time.time() - state["time"] < 30
    members = {
        member["name"]: member["state"] for service in state["services"].values() for member in service["members"]
    }
    assert {"learner-0", "rollout-0", "reward-0"} <= set(members)
    assert set(members.values()) == {"serving", "ready"}
    assert state["services"]["rollout"]["members"][0]["node"] == socket.gethostname()


def test_watch_shows_it_in_plain_text(run: tuple[Path, int]) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "orchestrator", "watch", str(run[0])],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "60"},
        timeout=60,
        check=True,
    ).stdout
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 60
    for words in ("running by process", "cold-start", "steps/h", "rollout-0 serving", "groups in flight", "reward"):
        assert words in " ".join(shown.split()), shown
