"""Weights, errors that are never rewards, and reward functions of the user's."""

from pathlib import Path

import pytest

from rewards import rubric as module
from rewards.rubric import Rubric, resolve, score_group
from rollout.errors import InputError
from rollout.types import Completion, Prompt
from tests.factories import completion, prompt, rollout_group

RIGHT = "<think>1+1</think><answer>2</answer>"


@pytest.mark.parametrize(
    ("text", "value", "breakdown"),
    [
        (RIGHT, 1.2, {"accuracy": 1.0, "format": 1.0}),
        ("2", 1.0, {"accuracy": 1.0, "format": 0.0}),
        ("<think>1+1</think><answer>3</answer>", 0.2, {"accuracy": 0.0, "format": 1.0}),
        ("3", 0.0, {"accuracy": 0.0, "format": 0.0}),
        ("", 0.0, {"accuracy": 0.0, "format": 0.0}),
    ],
)
def test_the_reward_is_the_weighted_sum(text: str, value: float, breakdown: dict[str, float]) -> None:
    score = Rubric("math", {"accuracy": 1.0, "format": 0.2}).score(prompt(answer="2"), completion(text))
    assert score.value == pytest.approx(value)
    assert score.breakdown == breakdown
    assert (score.status, score.error) == ("ok", "")
    assert score.seconds >= 0


def test_weights_may_be_negative_or_zero() -> None:
    score = Rubric("r", {"accuracy": -2.0, "format": 0.0}).score(prompt(answer="2"), completion(RIGHT))
    assert score.value == -2.0
    assert score.breakdown == {"accuracy": 1.0, "format": 1.0}


def broken(_: Prompt, __: Completion) -> float:
    raise KeyError("no such column")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = {
        "broken": broken,
        "nan": lambda *_: float("nan"),
        "infinite": lambda *_: float("inf"),
        "none": lambda *_: None,
        "picky": lambda _, c: 1 / len(c.text),
    }
    monkeypatch.setattr(module, "BUILTIN", module.BUILTIN | functions)


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", "broken: KeyError: 'no such column'"),
        ("nan", "nan: returned nan"),
        ("infinite", "infinite: returned inf"),
        ("none", "none: TypeError"),
    ],
)
def test_a_function_that_fails_gives_an_error_and_never_a_reward(name: str, reason: str) -> None:
    score = Rubric("r", {"accuracy": 1.0, name: 1.0}).score(prompt(answer="2"), completion(RIGHT))
    assert score.status == "error"
    assert score.error.startswith(reason)
    assert score.value == 0
    assert score.breakdown == {"accuracy": 1.0}


@pytest.mark.usefixtures("failing")
def test_completions_that_cannot_be_scored_leave_the_group_and_are_counted() -> None:
    texts = ["a", "", "bb", ""]
    group = rollout_group([completion(text) for text in texts])
    scored, errors = score_group(Rubric("r", {"picky": 1.0}), group)
    assert scored.group is group
    assert scored.completions == (group.completions[0], group.completions[2])
    assert scored.rewards == (1.0, 0.5)
    assert scored.num_errors == 2
    assert errors == ("picky: ZeroDivisionError: division by zero",) * 2
    assert scored.has_signal


@pytest.mark.usefixtures("failing")
def test_a_group_of_which_nothing_could_be_scored_is_empty() -> None:
    scored, errors = score_group(Rubric("r", {"broken": 1.0}), rollout_group([completion()] * 3))
    assert (scored.completions, scored.scores, scored.num_errors, len(errors)) == ((), (), 3, 3)
    assert not scored.has_signal


def test_a_group_of_equal_rewards_has_no_signal() -> None:
    scored, errors = score_group(Rubric("r", {"format": 1.0}), rollout_group([completion(RIGHT)] * 3))
    assert errors == ()
    assert not scored.has_signal


# --- The user's own


def test_a_function_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def brevity(prompt, completion):\n    return -len(completion.text) + len(prompt.fields['x'])\n")
    name = f"{path}:brevity"
    score = Rubric("r", {name: 0.5}).score(prompt(fields={"x": "ab"}), completion("12345"))
    assert score.value == -1.5
    assert score.breakdown == {name: -3.0}


def test_a_function_from_a_package() -> None:
    assert resolve("operator:add") is __import__("operator").add


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("acuracy", ["unknown reward function 'acuracy'", "accuracy, format", "path/to/file.py:function"]),
        ("/nowhere/mine.py:f", ["does not import", "no file /nowhere/mine.py"]),
        ("no_such_package.module:f", ["does not import", "no_such_package"]),
        ("math:no_such_function", ["math has no function 'no_such_function'"]),
        ("math:pi", ["math has no function 'pi'"]),
    ],
)
def test_a_function_that_does_not_exist_is_an_input_error(name: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        Rubric("r", {name: 1.0})
    message = str(caught.value)
    assert all(word in message for word in words)
    assert repr(name) in message
    assert "\n" not in message


def test_a_file_that_does_not_import_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import no_such_package\n")
    with pytest.raises(InputError, match="does not import: No module named 'no_such_package'"):
        resolve(f"{path}:f")
    path.write_text("def f(:\n")
    with pytest.raises(InputError, match="does not import"):
        resolve(f"{path}:f")
