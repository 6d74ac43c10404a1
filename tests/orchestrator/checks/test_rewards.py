"""Whether the rewards of a rubric exist, found out without running them."""

from pathlib import Path

import pytest

from orchestrator.checks.preflight import preflight
from orchestrator.config.recipe import Recipe
from rewards.sandbox.probe import Finding, Probe
from tests.orchestrator.factories import DOWNLOAD, fault, recipe

pytestmark = pytest.mark.usefixtures("laptop")


def with_reward(name: str) -> Recipe:
    return recipe(rewards={"rubrics": {"default": {name: 1.0}}})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy", "unknown reward function 'acuracy'; did you mean 'accuracy'?"),
        ("none.py:score", "no file none.py"),
        ("mine.py:scor", "mine.py defines no 'scor'; did you mean 'score'?"),
        ("broken.py:score", "broken.py is not valid Python"),
        ("no_such_package.x:score", "no module 'no_such_package' in this environment"),
        ("rollout.tasks.manners:quality", "has moved; its name is now 'rollout.data.tasks.manners:quality'"),
        ("json.no_such_module:score", "no module 'json.no_such_module'"),
        ("json.decoder:no_such_function", "defines no 'no_such_function'"),
    ],
)
def test_a_reward_that_does_not_exist(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('imported!')\ndef score(prompt, completion): return 1.0\n")
    (tmp_path / "broken.py").write_text("def score(:\n")
    text = fault(with_reward(name))
    assert "rewards.rubrics.default" in text
    assert message in text


@pytest.mark.parametrize(
    "name", ["accuracy", "mine.py:score", "mine.py:alias", "mine.py:loads", "json.decoder:JSONDecoder"]
)
def test_a_reward_that_exists_is_found_without_running_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "raise SystemExit('imported!')\nfrom json import loads\ndef score(p, c): return 1.0\nalias = score\n"
    )
    assert preflight(with_reward(name)) == [DOWNLOAD]


def test_an_empty_rubric_is_refused() -> None:
    assert "rewards.rubrics.default is empty" in fault(recipe(rewards={"rubrics": {"default": {}}}))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            {"name": "format", "strikt": True},
            "rewards.rubrics.default: reward function 'format' has no argument 'strikt'",
        ),
        ({"name": "length", "max_tokens": 9}, "reward function 'length' needs the argument 'buffer'"),
        ({"name": "code_tests", "scoring": "some"}, "scoring = 'some'; it is 'all' or 'fraction'"),
    ],
)
def test_arguments_that_a_function_does_not_take(function: dict[str, object], message: str) -> None:
    assert message in fault(recipe(rewards={"rubrics": {"default": {"functions": [function]}}}))


def test_a_code_rubric_needs_a_sandbox_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing() -> Probe:
        finding = Finding(tier="A", holds=False, detail="unshare: Operation not permitted", way_out="allow it")
        return Probe(tier=None, findings=(finding,))

    monkeypatch.setattr("rewards.sandbox.probe.probe", nothing)
    rubric = {"rubrics": {"default": {"code_tests": 1.0}}}
    text = fault(recipe(rewards=rubric))
    assert "unshare: Operation not permitted" in text
    assert "sandbox.allow_weak=true" in text
    (_, note) = preflight(recipe(rewards=rubric, sandbox={"allow_weak": True}))
    assert "unshare" in note
    assert preflight(recipe(rewards={"rubrics": {"default": {"accuracy": 1.0}}})) == [DOWNLOAD]


def test_packages_of_programs_are_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def with_packages(*names: str) -> Recipe:
        return recipe(rewards={"rubrics": {"default": {"code_tests": 1.0}}}, sandbox={"packages": names})

    assert preflight(with_packages("numpy")) == [DOWNLOAD]
    assert fault(with_packages("numpy", "nunpy")).startswith(
        "sandbox.packages: 'nunpy' is not installed here; did you mean 'numpy'?"
    )
    (tmp_path / "licensed.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = fault(with_packages("numpy", "licensed"))
    assert text.startswith("sandbox.packages: licensed: ")
    assert "take it out of sandbox.packages" in text
