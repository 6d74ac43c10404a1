"""Weights, gates, errors that are never rewards, start-up checks, and reward functions of the user's."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from rewards import builtin
from rewards.builtin import build_function
from rewards.models.scorers import KINDS
from rewards.resources import Resources, ResourceSettings
from rewards.rubric import Rubric, total
from rewards.types import FunctionScore, FunctionSpec, Sample, Score
from rollout.errors import InputError, ServiceError

RIGHT = "<think>1+1</think><answer>2</answer>"
WRONG = "<think>1+1</think><answer>3</answer>"


def spec(name: str, label: str = "", **changes: Any) -> FunctionSpec:
    return FunctionSpec(name=name, label=label or name.rpartition(":")[2], **changes)


def sample(text: str = RIGHT, **changes: Any) -> Sample:
    return Sample(**({"prompt": "1+1=", "completion": text, "answer": "2"} | changes))


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def resources(loop: asyncio.AbstractEventLoop) -> Iterator[Resources]:
    """One process pool for all tests of this file."""
    resources = Resources(ResourceSettings(function_timeout_s=2.0))
    yield resources
    loop.run_until_complete(resources.close())


@pytest.fixture
def score(loop: asyncio.AbstractEventLoop, resources: Resources) -> Any:
    def run(specs: list[FunctionSpec], asked: Sample) -> Score:
        return loop.run_until_complete(Rubric("r", specs, resources).score(asked))

    return run


@pytest.mark.parametrize(
    ("text", "value", "breakdown"),
    [
        (RIGHT, 1.2, {"accuracy": 1.0, "format": 1.0}),
        ("<answer>2</answer>", 1.0, {"accuracy": 1.0, "format": 0.0}),
        (WRONG, 0.2, {"accuracy": 0.0, "format": 1.0}),
        ("", 0.0, {"accuracy": 0.0, "format": 0.0}),
    ],
)
def test_the_reward_is_the_weighted_sum(score: Any, text: str, value: float, breakdown: dict[str, float]) -> None:
    got = score([spec("accuracy"), spec("format", weight=0.2)], sample(text))
    assert got.value == pytest.approx(value)
    assert got.breakdown == breakdown
    assert (got.status, got.error) == ("ok", "")
    assert set(got.seconds_of) == {"accuracy", "format"}


@pytest.mark.parametrize(
    ("weights", "breakdowns"),
    [
        ((0.1, 0.2, 0.3), [(1, 1, 0), (0, 0, 1), (1.0, 1.0, 0.0), (3, 0, 0)]),
        ((0.7, 0.1, 1.0), [(1, 1, 0), (1, 3, -0.2), (0, 8, 0), (0, 0, 0.8)]),
        ((1e6, 0.1, -0.1), [(1, 3, 0), (1, 0, -3), (1, 1, -2)]),
        ((1.0, 1.0, 1.0), [(0.1, 0.2, -0.3), (0, 0, 0), (0.3, -0.2, -0.1)]),
    ],
)
def test_rewards_that_add_up_to_the_same_are_the_same(
    weights: tuple[float, ...], breakdowns: list[tuple[float, ...]]
) -> None:
    functions = [spec("f", label, weight=weight) for label, weight in zip("abc", weights, strict=True)]
    rewards = {total(functions, dict(zip("abc", values, strict=True))) for values in breakdowns}
    assert len(rewards) == 1


@pytest.mark.parametrize(
    ("reference", "said", "right"),
    [
        ('["0.5", "\\\\frac{2}{3}"]', "1/2", True),
        ('["0.5", "\\\\frac{2}{3}"]', "2/3", True),
        ('["0.5", "\\\\frac{2}{3}"]', "1/3", False),
        ('["42"]', "42", True),
        ("[1, 2]", "[1,2]", True),  # an interval, and no list of answers
        ("[1, 2]", "1", False),
        ("[1, 2)", "[1,2)", True),
    ],
)
def test_any_answer_of_a_list_is_right(score: Any, reference: str, said: str, right: bool) -> None:
    got = score([spec("accuracy")], sample(f"\\boxed{{{said}}}", answer=reference))
    assert (got.status, got.value) == ("ok", float(right))


def test_a_reward_is_as_fine_as_its_parts_are(score: Any) -> None:
    functions = [spec("f", "a"), spec("f", "b", weight=0.25)]
    assert total(functions, {"a": 1.0, "b": 1e-6}) != total(functions, {"a": 1.0, "b": 2e-6})
    assert total(functions, {"a": -2.0, "b": 4.0}) == -1.0
    assert total(functions, {}) == 0.0


def test_a_gated_function_counts_only_where_its_gate_is_open(score: Any) -> None:
    specs = [spec("accuracy"), spec("format", weight=0.2, gate="accuracy")]
    assert score(specs, sample(RIGHT)).value == pytest.approx(1.2)
    got = score(specs, sample(WRONG))
    assert got.value == 0
    assert got.breakdown == {"accuracy": 0.0, "format": 1.0}


class Fixed:
    """A reward function that says one thing, or raises it."""

    probe = None

    def __init__(self, said: FunctionScore | Exception) -> None:
        self.said = said

    async def score(self, sample: Sample) -> FunctionScore:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.mark.parametrize(
    ("said", "status", "error"),
    [
        (KeyError("no such column"), "error", "x: KeyError: 'no such column'"),
        (FunctionScore(value=float("nan")), "error", "x: returned nan"),
        (FunctionScore(status="error", error="unreachable"), "error", "x: unreachable"),
        (FunctionScore(status="timeout"), "timeout", ""),
    ],
)
def test_a_function_that_fails_never_gives_a_reward(
    score: Any, monkeypatch: pytest.MonkeyPatch, said: FunctionScore | Exception, status: str, error: str
) -> None:
    monkeypatch.setitem(builtin.BUILTIN, "x", lambda spec, resources: Fixed(said))
    got = score([spec("accuracy"), spec("x")], sample())
    assert (got.status, got.error) == (status, error)
    assert got.value == (0 if status == "error" else 1)


# --- The user's own


USER = """
import asyncio, time

def brevity(prompt, completion, reference, per=1.0):
    return -per * len(completion)

async def table(prompt, completion, reference):
    await asyncio.sleep(0)
    return {"value": 0.5, "letters": len(completion), "note": "not a number"}

def picky(prompt, completion, reference):
    return 1 / len(completion)

def slow(prompt, completion, reference):
    time.sleep(60)

def text(prompt, completion, reference):
    return "good"

def rank(prompt, completions, reference):
    return [float(sorted(completions).index(c)) for c in completions]

def short(prompt, completions, reference):
    return [1.0]
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("user") / "mine.py"
    path.write_text(USER)
    return str(path)


def test_a_function_of_the_users_with_an_argument(score: Any, mine: str) -> None:
    got = score([spec(f"{mine}:brevity", weight=0.5, args={"per": 2.0})], sample("12345"))
    assert (got.value, got.breakdown) == (-5.0, {"brevity": -10.0})


def test_an_async_function_may_return_a_table(score: Any, mine: str) -> None:
    got = score([spec(f"{mine}:table")], sample("abc"))
    assert got.value == 0.5
    assert got.metrics == {"table.letters": 3.0}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("picky", ["ZeroDivisionError", "mine.py:", "return 1 / len(completion)"]),
        ("slow", ["took more than 2 s"]),
        ("text", ["returned 'good', which is not a number"]),
    ],
)
def test_a_failing_function_of_the_users_is_an_error_that_shows_its_line(
    score: Any, mine: str, name: str, words: list[str]
) -> None:
    got = score([spec(f"{mine}:{name}")], sample(""))
    assert got.status == "error"
    assert all(word in got.error for word in words), got.error


def test_a_group_function_sees_all_completions(
    loop: asyncio.AbstractEventLoop, resources: Resources, mine: str
) -> None:
    rubric = Rubric("r", [spec("accuracy"), spec(f"{mine}:rank", group=True)], resources)
    scores = loop.run_until_complete(rubric.score_group([sample("b"), sample("c"), sample("a")]))
    assert [each.values for each in scores] == [{"rank": 1.0}, {"rank": 2.0}, {"rank": 0.0}]
    bad = Rubric("r", [spec(f"{mine}:short", group=True)], resources)
    with pytest.raises(ServiceError, match="it must be a list of 2 numbers"):
        loop.run_until_complete(bad.score_group([sample("b"), sample("c")]))


# --- Before a run


@pytest.mark.parametrize("name", sorted(set(builtin.BUILTIN) - set(KINDS)))
def test_every_function_that_ships_tells_right_from_wrong(
    loop: asyncio.AbstractEventLoop, resources: Resources, name: str
) -> None:
    args = {"length": {"max_tokens": 100, "buffer": 20}}.get(name, {})
    rubric = Rubric("r", [spec(name, args=args)], resources)
    assert build_function(spec(name, args=args), resources).probe is not None
    loop.run_until_complete(rubric.check(sample()))


def test_a_dead_verifier_is_found_at_the_start(
    loop: asyncio.AbstractEventLoop, resources: Resources, monkeypatch: pytest.MonkeyPatch, mine: str
) -> None:
    class Dead(Fixed):
        probe = (sample(RIGHT), sample(WRONG))  # type: ignore[assignment]

    monkeypatch.setitem(builtin.BUILTIN, "dead", lambda spec, resources: Dead(FunctionScore(value=0.0)))
    with pytest.raises(ServiceError, match="gives a right answer 0 and a wrong one 0"):
        loop.run_until_complete(Rubric("r", [spec("dead")], resources).check(sample()))
    with pytest.raises(InputError, match="ZeroDivisionError"):
        loop.run_until_complete(Rubric("r", [spec(f"{mine}:picky")], resources).check(sample("")))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (spec("acuracy"), ["unknown reward function 'acuracy'", "did you mean 'accuracy'?", "path/to/file.py"]),
        (
            spec("format", args={"strikt": 1}),
            ["reward function 'format' has no argument 'strikt'; did you mean 'strict'"],
        ),
        (spec("length", args={"max_tokens": 9}), ["reward function 'length' needs the argument 'buffer'"]),
        (spec("reward_model"), ["reward function 'reward_model' needs the argument 'path'"]),
        (spec("rollout.tasks.manners:quality"), ["has moved", "'rollout.data.tasks.manners:quality'"]),
        (spec("rewards.length:soft_overlong", group=True), ["has moved", "'rewards.text.length:soft_overlong'"]),
        (spec("judge", args={"endpont": "x"}), ["has no argument 'endpont'; did you mean 'endpoint'?"]),
    ],
)
def test_a_function_that_does_not_exist_is_an_input_error(
    resources: Resources, asked: FunctionSpec, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        Rubric("r", [asked], resources)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("origin", ["/nowhere/mine.py", "no_such_package.module"])
def test_a_file_that_is_not_there_is_an_input_error(
    loop: asyncio.AbstractEventLoop, resources: Resources, origin: str
) -> None:
    with pytest.raises(InputError, match=f"{origin}:f"):
        loop.run_until_complete(Rubric("r", [spec(f"{origin}:f")], resources).check(sample()))
