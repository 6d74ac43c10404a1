"""The command line: what each command hands on, and that every mistake is a line or two and an exit code.

Training and evaluation themselves are put aside by a stand-in module: what is under test is the way to them.
"""

import errno
import json
import sys
import threading
import tomllib
import types
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray.exceptions

from orchestrator.cli import run
from orchestrator.cluster.submit import checked_address, is_loopback
from orchestrator.config.load import load_recipe, parse_recipe
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.run.store import RunStore
from rollout.errors import InputError, ServiceError

pytestmark = pytest.mark.usefixtures("laptop")

COMMANDS = (
    "train", "check", "convert", "submit", "eval", "score", "export", "status", "watch", "scale", "stop", "report", "recipes", "doctor",
)  # fmt: skip


class Pipeline(types.ModuleType):
    """In place of `orchestrator.pipeline`: notes what it was given, or fails as it is told to."""

    def __init__(self) -> None:
        super().__init__("orchestrator.pipeline")
        self.calls: list[tuple[Recipe, Path]] = []
        self.selected: list[list[str]] = []
        self.failure: BaseException | None = None

    def train(self, recipe: Recipe, run_dir: Path, selected: Sequence[Stage]) -> None:
        self.calls.append((recipe, run_dir))
        self.selected.append([stage.name for stage in selected])
        if self.failure is not None:
            raise self.failure
        RunStore(run_dir, recipe)
        (run_dir / recipe.stages[0].name / "checkpoints" / "step-000001").mkdir(parents=True, exist_ok=True)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    module = Pipeline()
    monkeypatch.setitem(sys.modules, "orchestrator.pipeline", module)
    return module


# --- Mistakes


@pytest.mark.parametrize(
    ("argv", "fragments"),
    [
        (["train", "arithmetik"], ["unknown recipe 'arithmetik'", "did you mean 'arithmetic'?"]),
        (["train", "arithmetic", "learner.rank=2"], ["unknown key learner.rank", "did you mean 'ranks'?"]),
        (["train", "arithmetic", "learner.lr"], ["'learner.lr'", "key=value"]),
        (["train", "arithmetic", "learner.lr=-1"], ["learner.lr = -1", "greater than 0"]),
        (["train", "arithmetic", "--run", "taken"], ["--run taken", "no recipe.toml", "choose another folder"]),
        (["train", "none/recipe.toml"], ["no recipe file at none/recipe.toml"]),
        (["train", "./taken"], ["./taken is a folder without a run"]),
        (
            ["train", "arithmetic", "rollout.replicas=9"],
            ["rollout.replicas = 9", "10 CPUs", "has 2", "rollout.cpus=0.1"],
        ),
        (["train", "arithmetic", "model.path=./nowhere"], ["model.path = './nowhere'", "no folder there"]),
        (
            ["train", "arithmetic", "--address", "http://h:8265"],
            ["cluster.address = 'http://h:8265'", "rayzero submit"],
        ),
        (["train", "arithmetic", "--seed", "-1"], ["Invalid value for '--seed'"]),
        (["train"], ["Missing argument", "RECIPE"]),
        (["trian"], ["No such command", "trian"]),
        (["train", "arithmetic", "--steps", "3"], ["No such option", "--steps"]),
        (["check", "arithmetic", "data.template=cat"], ["data.template = 'cat'", "did you mean 'chat'?"]),
        (["submit", "arithmetic"], ["--address"]),
        (["submit", "arithmetic", "--address", "http://127.0.0.1:1"], ["no answer (Connection refused)", "ray start"]),
        (["submit", "arithmetic", "--address", "ray://h:10001"], ["write http://HOST:8265"]),
        (["submit", "--address", "http://127.0.0.1:1"], ["RECIPE is missing", "--list"]),
        (["submit", "--list", "--address", "http://127.0.0.1:1"], ["no answer (Connection refused)", "ray start"]),
        (["stop", "runs/a", "--address", "http://127.0.0.1:1"], ["no answer (Connection refused)", "ray start"]),
        (["stop", "runs/a", "--address", "http://h.invalid:1"], ["--run runs/a", "absolute folder"]),
        (["submit", "arithmetic", "--address", "http://h.invalid:1"], ["--run", "absolute folder", "--run /shared"]),
        (
            ["submit", "arithmetic", "--address", "http://127.0.0.1:1", "--working-dir", "none"],
            ["--working-dir none", "no such folder"],
        ),
        (["eval", "org/model"], ["org/model: evaluate on what?", "--set NAME=PATH"]),
        (["eval", "org/model", "--set", "test.jsonl"], ["--set test.jsonl", "NAME=PATH"]),
        (["eval", "org/model", "--set", "t=none.jsonl"], ["eval.sets.t", "no file or folder at none.jsonl"]),
        (["eval", "./nowhere", "--recipe", "arithmetic"], ["model.path = './nowhere'", "no folder there"]),
        (["eval", "org/model", "--recipe", "arithmetic", "--top-p", "2"], ["eval.top_p = 2.0"]),
        (["eval", "org/model", "--recipe", "arithmetic", "--out", "taken"], ["--out taken", "is a folder"]),
        (["report", "none"], ["none"]),
        (["report", "none", "--serve"], ["none", "holds no run"]),
        (["report", "none", "more", "--serve"], ["--serve", "one run"]),
        (["report", "none", "--serve", "--port", "70000"], ["--port", "65535"]),
        (["watch", "none", "--once"], ["none", "holds no run"]),
        (["watch", "none", "--every", "0"], ["--every", "0"]),
    ],
)
def test_a_mistake_is_told_in_lines_with_exit_code_2(
    argv: list[str], fragments: list[str], tmp_path: Path, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("x")
    assert run(argv) == 2
    error = capsys.readouterr().err
    for fragment in fragments:
        assert fragment in error
    assert "Traceback" not in error
    assert "Usage" in error or (error.startswith("rayzero: ") and len(error.splitlines()) <= 3)
    assert pipeline.calls == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"Usage: rayzero {command}" in capsys.readouterr().out


def test_help_lists_every_command_and_version_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {command} " in out for command in COMMANDS)
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rayzero ")


# --- train


def test_train_hands_on_the_stages_that_are_asked_for(pipeline: Pipeline) -> None:
    for options in ([], ["--only", "cold-start"], ["--from", "reasoning"], ["--until", "cold-start"]):
        assert run(["train", "arithmetic", "--run", "mine", *options]) == 0
    assert pipeline.selected == [["cold-start", "reasoning"], ["cold-start"], ["reasoning"], ["cold-start"]]


def test_train_hands_on_the_recipe_and_its_folder(pipeline: Pipeline) -> None:
    argv = ["train", "arithmetic", "learner.lr=1e-3", "--address", "auto", "--seed", "7"]
    assert run(argv) == 0
    ((recipe, run_dir),) = pipeline.calls
    assert run_dir == Path("runs/arithmetic")
    assert (recipe.seed, recipe.cluster.address) == (7, "auto")
    assert {stage.learner.lr for stage in recipe.stages} == {1e-3}


def test_a_run_is_continued_by_recipe_or_by_folder(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "arithmetic", "seed=3", "--run", "mine"]) == 0
    assert "continuing" not in capsys.readouterr().out
    assert run(["train", "arithmetic", "seed=3", "--run", "mine"]) == 0
    assert "continuing the run in mine" in capsys.readouterr().out
    assert run(["train", "./mine"]) == 0
    assert [str(run_dir) for _, run_dir in pipeline.calls] == ["mine", "mine", "mine"]
    assert pipeline.calls[2][0] == pipeline.calls[0][0]


def test_a_run_is_not_continued_with_other_settings(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "arithmetic"]) == 0
    assert run(["train", "arithmetic", "stages.cold-start.learner.lr=0.5"]) == 2
    error = capsys.readouterr().err
    assert "→ 0.5 (stage cold-start)" in error
    assert "rayzero train runs/arithmetic" in error
    assert "--run DIR" in error
    assert run(["train", "runs/arithmetic", "loop.steps=100000", "cluster.start_timeout_s=9"]) == 0


def test_a_failed_service_says_how_to_continue(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline.failure = ServiceError("replica 0 did not answer within 600 s")
    assert run(["train", "arithmetic"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "rayzero: replica 0 did not answer within 600 s",
        "continue with: rayzero train runs/arithmetic",
    ]


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/run/metrics.jsonl"), "/run/metrics.jsonl: No space left"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/run/lock"),
            "/run/lock: Permission denied; who runs this",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"),
            "/x: No such file or directory; it is not",
        ),
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
            "ConnectionRefusedError: Connection refused",
        ),
        (ray.exceptions.ObjectStoreFullError("no 5 GB"), "Ray's object store is full: no 5 GB; give it more memory"),
        (ray.exceptions.OwnerDiedError("ab", None, ""), "what it had made was lost with the process that made it"),
        (ray.exceptions.ActorUnschedulableError("8 GPUs"), "it can have no place"),
        (
            ray.exceptions.RayTaskError("f", "Traceback", OSError(errno.EROFS, "Read-only file system", "/d/x")),
            "/d/x: Read-only file system; it can only be read",
        ),
        (
            ExceptionGroup("two", [OSError(errno.EIO, "Input/output error", "/d/x"), KeyError()]),
            "/d/x: Input/output error",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_failures_of_files_and_of_ray_are_a_line_and_how_to_continue(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str], failure: Exception, said: str
) -> None:
    pipeline.failure = failure
    assert run(["train", "arithmetic"]) == 1
    line, way_out = capsys.readouterr().err.splitlines()
    assert line.startswith(f"rayzero: {said}")
    assert way_out == "continue with: rayzero train runs/arithmetic"


def test_ctrl_c_is_exit_code_130(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline.failure = KeyboardInterrupt()
    assert run(["train", "arithmetic"]) == 130
    assert capsys.readouterr().err == ""


def test_a_defect_keeps_its_traceback(pipeline: Pipeline) -> None:
    pipeline.failure = ZeroDivisionError("defect")
    with pytest.raises(ZeroDivisionError):
        run(["train", "arithmetic"])


# --- check, recipes


def test_check_shows_what_differs_what_it_places_and_its_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "arithmetic", "learner.lr=3e-5"]) == 0
    out = capsys.readouterr().out
    assert "all stages" in out
    assert "  learner.lr = 3e-05\n" in out
    assert "learner.beta1" not in out
    assert "places  1 engine × 1 + 1 rank × 1 = 2 CPU of 2 here" in out
    assert "memory  about 1.94 GB with packs of 8,192 tokens" in out
    assert not Path("runs").exists()


def test_check_shows_what_changes_at_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "arithmetic", "stages.reasoning.schedule=[{from_step=8, rollout.temperature=0.5}]"]) == 0
    out = capsys.readouterr().out
    assert "\n  from step 8: rollout.temperature = 0.5\n" in out
    assert out.index("stage reasoning") < out.index("from step 8")


def test_check_in_full_is_a_recipe_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "arithmetic", "seed=9", "--full"]) == 0
    assert parse_recipe(tomllib.loads(capsys.readouterr().out)) == load_recipe("arithmetic", ["seed=9"])


def test_recipes_lists_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes"]) == 0
    assert "arithmetic  " in capsys.readouterr().out


# --- eval, report

RESULT = {
    "set": "held-out",
    "problems": 256,
    "greedy": 0.5,
    "pass@1": None,
    "cons@k": None,
    "k": 0,
    "format": 1.0,
    "length_mean": 12.5,
    "samples": [],
}


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, str]]:
    """In place of `orchestrator.evaluation.standalone`: what it was asked."""
    asked: list[tuple[Recipe, str]] = []

    def evaluate_model(recipe: Recipe, model_path: str) -> list[dict[str, Any]]:
        asked.append((recipe, model_path))
        return [RESULT]

    module = types.ModuleType("orchestrator.evaluation.standalone")
    module.evaluate_model = evaluate_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "orchestrator.evaluation.standalone", module)
    return asked


def test_eval_of_a_run_measures_its_newest_export_by_its_recipe(
    tmp_path: Path, evaluations: list[tuple[Recipe, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "runs" / "mine"
    RunStore(run_dir, load_recipe("arithmetic", ["rollout.max_tokens=32"]))
    assert run(["eval", "runs/mine"]) == 2
    assert "no stage is finished" in capsys.readouterr().err
    export = run_dir / "cold-start" / "export"
    export.mkdir(parents=True)
    (export / "config.json").write_text("{}")
    (export / "pytorch_model.bin").write_bytes(b"0" * 2000)
    (export / "tokenizer.json").write_text("{}")
    assert run(["eval", "runs/mine", "--samples", "2", "--no-greedy", "eval.max_tokens=16"]) == 0
    ((recipe, model),) = evaluations
    assert Path(model) == Path("runs/mine/cold-start/export")
    settings = recipe.stages[-1].eval
    assert (settings.samples, settings.greedy, settings.max_tokens) == (2, False, 16)
    assert recipe.stages[-1].rollout.max_tokens == 32
    assert json.loads((run_dir / "eval.json").read_text()) == {"model": model, "results": [RESULT]}
    out = capsys.readouterr().out
    assert "50.0 %" in out
    assert "–" in out


def test_eval_of_a_model_takes_files_and_writes_where_told(
    tmp_path: Path, evaluations: list[tuple[Recipe, str]]
) -> None:
    (tmp_path / "t.jsonl").write_text('{"q": "1+1", "a": "2"}\n')
    columns = ["--prompt-column", "q", "--answer-column", "a"]
    assert run(["eval", "org/model", "--set", "t=t.jsonl", *columns, "--out", "here/out.json"]) == 0
    ((recipe, model),) = evaluations
    assert model == recipe.stages[-1].model.path == "org/model"
    assert json.loads((tmp_path / "here" / "out.json").read_text())["results"] == [RESULT]


def test_report_prints_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunStore(tmp_path / "r", load_recipe("arithmetic"))
    assert run(["report", "r"]) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()
    assert (tmp_path / "r" / "table.json").is_file()


def test_report_prints_the_table_of_one_run_or_of_several_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        store = RunStore(tmp_path / f"s{seed}", load_recipe("arithmetic", [f"seed={seed}"]))
        store.record("eval", "reasoning", set="held-out", step=24, label="after", greedy=0.5 + seed / 10)
    assert run(["report", "s1", "--table"]) == 0
    assert "| reasoning | reinforcement learning from cold-start | 60.0 |" in capsys.readouterr().out
    assert run(["report", "s1", "s2", "--table"]) == 0
    assert "| 65.0 (60.0–70.0) |" in capsys.readouterr().out
    assert not (tmp_path / "s1" / "report.html").exists()


# --- submit


class Answer(BaseHTTPRequestHandler):
    """Something that listens, but is no dashboard."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def web_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_no_dashboard_is_told(web_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", "arithmetic", "--address", web_server]) == 2
    assert "answers, but is not a Ray dashboard" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://127.0.0.1:8265", "http://127.0.0.1:8265"),
        ("http://head:8265/", "http://head:8265"),
        ("head:8265", "http://head:8265"),
        ("head", "http://head:8265"),
        ("https://ray.example.org", "https://ray.example.org"),
    ],
)
def test_addresses_of_a_dashboard(given: str, address: str) -> None:
    assert checked_address(given) == address


@pytest.mark.parametrize("given", ["ray://h:1", "http://h:x", "http://h:1/some/path", "http://", "http://h:99999"])
def test_what_is_no_address_of_a_dashboard(given: str) -> None:
    with pytest.raises(InputError, match="write http://HOST:8265"):
        checked_address(given)


def test_loopback_is_this_machine() -> None:
    assert [is_loopback(f"http://{host}:1") for host in ("localhost", "127.0.0.1", "[::1]", "head", "10.0.0.1")] == [
        True,
        True,
        True,
        False,
        False,
    ]
