"""What a job takes along, and that a run has one job at a time. The cluster is a stand-in that keeps what it is sent."""

import json
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cli import run
from orchestrator.cluster import submit as module
from orchestrator.cluster.job_environment import FILE
from orchestrator.cluster.jobs import jobs_of, run_jobs
from orchestrator.cluster.submit import Job, Wish, make_job
from orchestrator.config.load import load_recipe
from rollout.errors import InputError

pytestmark = pytest.mark.usefixtures("laptop")

HERE, AWAY = "http://127.0.0.1:8265", "http://head:8265"
RECIPE = """
name = "mine"
model.build.tokenizer = "bpe"
[[stages]]
name = "rl"
kind = "grpo"
data.sources.q = { path = "data/q.jsonl" }
[stages.rewards.rubrics.default]
"own/mine.py:score" = 1.0
"""
SECRET = "tOp-s3cret"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The folder that the command is called in, with a recipe and its files."""
    for name in ("data/q.jsonl", "own/mine.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mine.toml").write_text(RECIPE)
    return tmp_path


def job(scratch: Path, address: str = HERE, name: str = "mine.toml", overrides: Sequence[str] = (), **wish: Any) -> Job:
    scratch.mkdir(exist_ok=True)
    recipe = load_recipe(name, overrides)
    return make_job(recipe, name, overrides, address, "/runs/x y", Wish(**wish), scratch)


# --- What travels


def test_the_resolved_recipe_travels_with_absolute_paths_where_the_cluster_is_this_machine(here: Path) -> None:
    sent = job(here / "s")
    (stage,) = tomllib.loads((Path(sent.runtime_env["working_dir"]) / "mine.toml").read_text())["stages"]
    assert stage["data"]["sources"]["q"]["path"] == f"{here}/data/q.jsonl"
    assert [each["name"] for each in stage["rewards"]["rubrics"]["default"].values()] == [f"{here}/own/mine.py:score"]
    assert shlex.split(sent.entrypoint)[2:] == [
        "orchestrator",
        "train",
        "mine.toml",
        "--address",
        "auto",
        "--run",
        "/runs/x y",
    ]


def test_a_relative_path_is_refused_where_the_cluster_is_another_machine(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["submit", "mine.toml", "--address", "http://head.invalid:8265", "--run", "/shared/r"]) == 2
    error = capsys.readouterr().err
    assert "data.sources.q.path = 'data/q.jsonl'" in error
    assert "--working-dir DIR" in error


def test_the_users_folder_travels_and_paths_are_those_inside_it(here: Path) -> None:
    (here / "mine.toml").rename(here / "own" / "mine.toml")
    overrides = ["description=a b"]
    sent = job(here / "s", AWAY, "own/mine.toml", overrides, working_dir=str(here), command="rz")
    assert sent.runtime_env["working_dir"] == str(here)
    assert sent.entrypoint == "rz train ./own/mine.toml 'description=a b' --address auto --run '/runs/x y'"


@pytest.mark.parametrize(
    ("folder", "settings", "said"),
    [
        ("own", [], "recipe mine.toml is outside of --working-dir own"),
        (
            ".",
            ["data.sources.q.path=data/none.jsonl"],
            "data.sources.q.path = 'data/none.jsonl': is not in --working-dir .",
        ),
        (".", ["data.sources.q.path=../q.jsonl"], "data.sources.q.path = '../q.jsonl': is not in --working-dir ."),
        (".", ["data.template=none.jinja"], "data.template = 'none.jinja': is not in --working-dir ."),
        ("none", [], "--working-dir none: no such folder"),
    ],
)
def test_what_is_not_in_the_users_folder_is_refused(folder: str, settings: list[str], said: str, here: Path) -> None:
    (here.parent / "q.jsonl").touch()
    with pytest.raises(InputError, match=r"^" + said.replace(".", r"\.")):
        job(here / "s", AWAY, overrides=settings, working_dir=folder)


def test_patterns_and_absolute_paths_may_stand_in_a_folders_recipe(here: Path) -> None:
    for path in ("data/*.jsonl", "/data/on/the/cluster.jsonl"):
        made = job(here / f"s{len(path)}", AWAY, overrides=[f"data.sources.q.path={path}"], working_dir=".")
        assert path in made.entrypoint, "handed on as it is"


@pytest.mark.parametrize(
    ("ignored", "said"),
    [
        ("data/.gitignore:*.jsonl", "data.sources.q.path = 'data/q.jsonl': a .gitignore"),
        (".rayignore:own/", "'own/mine.py': a .gitignore or .rayignore"),
        (".gitignore:mine.toml", "recipe ./mine.toml: a .gitignore"),
        (".gitignore:*.jsonl\n!q.jsonl", ""),
        (".gitignore:runs", ""),
    ],
)
def test_what_git_ignores_is_missed_before_the_job_is_sent(
    ignored: str, said: str, here: Path, cluster: "Cluster", capsys: pytest.CaptureFixture[str]
) -> None:
    file, _, text = ignored.partition(":")
    (here / file).write_text(text)
    code = run(["submit", "mine.toml", "--working-dir", ".", "--address", AWAY, "--run", "/runs/a"])
    assert (code, len(cluster.jobs)) == ((2, 0) if said else (0, 1))
    assert said in capsys.readouterr().err


# --- Variables


def test_variables_travel_in_a_package_of_their_own_and_stand_nowhere_else(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    sent = job(here / "s", variables=["HF_TOKEN", "MODE=a=b"])
    (package,) = map(Path, sent.runtime_env["py_modules"])
    assert json.loads((package / FILE).read_text()) == {"HF_TOKEN": SECRET, "MODE": "a=b"}
    assert (package / FILE).stat().st_mode & 0o077 == 0
    assert SECRET not in f"{sent}"
    assert SECRET not in (Path(sent.runtime_env["working_dir"]) / "mine.toml").read_text()
    assert sent.metadata == job(here / "t").metadata, "what a job is asked to do does not depend on them"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("NOT_SET_HERE", "--env NOT_SET_HERE: is not set here"),
        (f"1A={SECRET}", "--env 1A: write NAME, or NAME=VALUE"),
        (f"={SECRET}", "--env : write NAME"),
        (f"CUDA_VISIBLE_DEVICES={SECRET}", "is Ray's own"),
        (f"RAY_AUTH_TOKEN={SECRET}", "is Ray's own"),
        (f"PYTHONPATH={SECRET}", "write cluster.env.PYTHONPATH=VALUE"),
        (f"BOTH={SECRET}", "the recipe has cluster.env.BOTH too"),
    ],
)
def test_a_variable_that_cannot_be_given(given: str, said: str, here: Path) -> None:
    with pytest.raises(InputError) as caught:
        job(here / "s", overrides=["cluster.env.BOTH=1"], variables=[given])
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


# --- Packages


def test_packages_are_handed_to_ray_and_rayzero_is_called_in_their_environment(here: Path) -> None:
    (here / "needs.txt").write_text("# mine\nregex==2024.5\n\n--index-url https://pypi.example.org/simple\n")
    sent = job(here / "s", packages={"pip": ["sympy>=1.12", "needs.txt"], "uv": []})
    wanted = ["sympy>=1.12", "regex==2024.5", "--index-url https://pypi.example.org/simple"]
    assert sent.runtime_env["pip"] == wanted
    assert "uv" not in sent.runtime_env
    assert sent.entrypoint.startswith("python -m orchestrator train ")
    assert job(here / "t", packages={"uv": ["sympy"]}).runtime_env["uv"] == ["sympy"]
    from ray.runtime_env import RuntimeEnv

    assert RuntimeEnv(pip=wanted)["pip"]["packages"] == wanted


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"packages": {"pip": ["none.txt"]}}, "--pip none.txt: cannot be read"),
        ({"packages": {"pip": ["./own"]}}, "--pip ./own: is a path of this machine"),
        ({"packages": {"uv": ["-e own"]}}, "--uv -e own: is a path of this machine"),
        ({"packages": {"uv": ["own @ file:///x"]}}, "is a path of this machine"),
        ({"packages": {"pip": [" "]}}, "names no package"),
        ({"packages": {"pip": ["a"], "uv": ["b"]}}, "--pip and --uv"),
        ({"packages": {"pip": ["a"]}, "command": "rz"}, "leave --command out"),
    ],
)
def test_packages_that_cannot_be_installed(wish: dict[str, Any], said: str, here: Path) -> None:
    with pytest.raises(InputError) as caught:
        job(here / "s", **wish)
    assert said in str(caught.value)


# --- One job a run


class Cluster:
    """Keeps jobs as Ray does; `busy` of them go on."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.state = "RUNNING"
        self.stopped: list[str] = []
        self.race = False

    def get_address(self) -> str:
        return AWAY

    def submit_job(self, *, submission_id: str, **sent: Any) -> str:
        if submission_id in self.jobs or self.race:
            raise RuntimeError(
                f"Request failed with status code 500: Job with submission_id {submission_id} already exists."
            )
        self.jobs[submission_id] = sent | {"status": self.state}
        return submission_id

    def list_jobs(self) -> list[Any]:
        foreign = SimpleNamespace(
            submission_id="raysubmit_x", metadata=None, status=SimpleNamespace(value="RUNNING"), start_time=1
        )
        return [foreign] + [
            SimpleNamespace(
                submission_id=name,
                metadata=each["metadata"],
                status=SimpleNamespace(value=each["status"]),
                start_time=1000 * place,
            )
            for place, (name, each) in enumerate(self.jobs.items())
        ]

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        self.jobs[job_id]["status"] = "STOPPED"
        return True

    def get_job_status(self, job_id: str) -> Any:
        status = self.jobs[job_id]["status"]
        return SimpleNamespace(value=status, is_terminal=lambda: status in ("STOPPED", "FAILED", "SUCCEEDED"))

    async def tail_job_logs(self, job_id: str) -> Any:
        yield "step 1\n"
        self.jobs[job_id]["status"] = "SUCCEEDED"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(module, "connect", lambda address: found)
    monkeypatch.setattr("orchestrator.cluster.jobs.connect", lambda address: found)
    return found


SUBMIT = ["submit", "arithmetic", "--address", AWAY, "--run", "/runs/a/../b"]


def test_the_same_command_continues_a_run_once_its_job_has_ended(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(SUBMIT) == 0
    (first,) = cluster.jobs
    assert f"rayzero stop /runs/b --address {AWAY}" in capsys.readouterr().out
    cluster.jobs[first]["status"] = "FAILED"
    assert run([*SUBMIT, "stages.reasoning.loop.steps=70"]) == 0
    assert f"continues  {first}, failed" in capsys.readouterr().out
    assert len(cluster.jobs) == 2
    assert run(["submit", "arithmetic", "--address", AWAY, "--run", "/runs/other"]) == 0
    assert "continues" not in capsys.readouterr().out


def test_a_run_whose_job_goes_on_gets_no_second_one(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    for state in ("PENDING", "RUNNING"):
        cluster.jobs.clear()
        cluster.state = state
        assert run(SUBMIT) == 0
        assert run(SUBMIT) == 2
        error = capsys.readouterr().err
        assert "--run /runs/b: job arithmetic-" in error
        assert f"is {state.lower()}; --follow shows it\n" in error
        assert f"rayzero stop /runs/b --address {AWAY}" in error
        assert run([*SUBMIT, "--follow", "seed=2"]) == 2
        assert "was asked to do something else" in capsys.readouterr().err
        assert len(cluster.jobs) == 1


def test_a_job_that_goes_on_is_followed_by_the_same_command(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(SUBMIT) == 0
    assert run([*SUBMIT, "--follow"]) == 0
    assert "was asked to do this before" in (out := capsys.readouterr().out)
    assert "step 1\njob arithmetic-" in out
    assert len(cluster.jobs) == 1


def test_two_submissions_at_one_moment_are_one_job(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.race = True
    assert run(SUBMIT) == 2
    assert "another job of this run was submitted at this moment" in capsys.readouterr().err


def test_jobs_are_listed_the_newest_first(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", "--list", "--address", AWAY]) == 0
    assert "no job of http://head:8265 trains a run" in capsys.readouterr().out
    for name in ("a", "b"):
        run(["submit", "arithmetic", "--address", AWAY, "--run", f"/runs/{name}"])
    capsys.readouterr()
    assert run(["submit", "--list", "--address", AWAY]) == 0
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head == ["job", "state", "age", "run"]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        (job_id, "running", each["metadata"]["run"]) for job_id, each in reversed(cluster.jobs.items())
    ]


def test_a_job_is_stopped_by_its_run(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    run(SUBMIT)
    (job_id,) = cluster.jobs
    assert run(["stop", "/runs/b/", "--address", AWAY]) == 0
    assert cluster.stopped == [job_id]
    assert f"stopped {job_id}" in capsys.readouterr().out
    assert run(["stop", "/runs/b", "--address", AWAY]) == 2
    assert f"the last one, {job_id}, stopped" in capsys.readouterr().err
    assert run(["stop", "/runs/none", "--address", AWAY]) == 2
    assert "--list" in capsys.readouterr().err
    assert jobs_of("/runs/none", run_jobs(cluster)) == []
