"""pass@1, cons@k, greedy and the figures of the rubric, of completions whose answers are known."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.config.recipe import Stage
from orchestrator.config.rubrics import rubrics_of
from orchestrator.evaluation.figures import Correctness, EvalResult, summarize
from orchestrator.evaluation.outcomes import fingerprint
from orchestrator.evaluation.sets import evaluate_sets
from rollout.errors import ServiceError
from rollout.types import Completion, Prompt, RolloutGroup, Sampling
from tests.factories import completion, prompt, rollout_group, scored_group
from tests.orchestrator.evaluation.evaluated import UNSCORABLE, Here, Written, evaluated
from tests.orchestrator.factories import recipe

MATH = {"accuracy": 1.0, "format": 0.2}


def stage_of(rubric: dict[str, Any] = MATH, *, k: int = 0, greedy: bool = False, **chosen: Any) -> Stage:
    """One evaluation set, called `set`. `chosen`: keys of it."""
    return recipe(
        rewards={"rubrics": {"default": rubric}, "max_error_rate": 0.3},
        eval={"sets": {"set": {"path": "t.jsonl", **chosen}}, "samples": k, "greedy": greedy},
    ).stages[0]


def answer(value: str | None) -> str:
    """In the R1 form; None answers nothing."""
    return "<think>hm</think>" if value is None else f"<think>hm</think><answer>{value}</answer>"


def figures(groups: Sequence[Sequence[str]], stage: Stage | None = None, **more: Any) -> EvalResult:
    """One problem a group, whose answer is 2."""
    prompts = [prompt(f"s/{i}") for i in range(len(groups))]
    texts = {f"s/{i}": group for i, group in enumerate(groups)}
    (result,) = evaluated(stage or stage_of(k=len(groups[0])), {"set": prompts}, texts, **more)
    return result


def sampled(*groups: Sequence[str | None]) -> EvalResult:
    return figures([[answer(value) for value in group] for group in groups])


def test_pass_at_1_is_the_mean_over_problems_of_the_share_that_is_right() -> None:
    result = sampled("2234", "2222", "1111")
    assert result.pass_at_1 == pytest.approx((2 / 4 + 1 + 0) / 3)
    assert (result.problems, result.k, result.greedy, result.correct) == (3, 4, None, "accuracy")


@pytest.mark.parametrize(
    ("answers", "right"),
    [
        (("2", "2", "3"), 1.0),
        (("2", "3", "3"), 0.0),
        (("2", "3"), 1.0),  # a tie: the earliest
        (("3", "2"), 0.0),
        (("3", "2", "2", "3"), 0.0),
        (("2.0", "3", "4/2", "3", "2"), 1.0),  # equal numbers are one vote
        (("x", "X", "2"), 0.0),
        ((None, None, "2"), 1.0),  # no answer is no vote
        ((None, None), 0.0),
        (("", "2"), 1.0),
        (("3</answer><answer>2", "2", "3"), 1.0),  # it hedges, which is wrong, and votes for 2
    ],
)
def test_the_majority_decides(answers: tuple[str | None, ...], right: float) -> None:
    assert sampled(answers).cons_at_k == right


def test_cons_at_k_is_the_share_of_problems() -> None:
    assert sampled("223", "332").cons_at_k == 0.5


def test_greedy_alone() -> None:
    result = figures([["2"], ["3"]], stage_of(greedy=True))
    assert (result.greedy, result.pass_at_1, result.cons_at_k, result.k) == (0.5, None, None, 0)
    assert [sample["correct"] for sample in result.samples] == [True, False]


def test_each_way_of_decoding_is_asked_for_as_the_recipe_says() -> None:
    sampler = Written({"s/0": [answer("2"), answer("3")]})
    figures([["", ""]], stage_of(k=2, greedy=True), sampler=sampler)
    assert sampler.asked == [
        Sampling(temperature=0.0, max_tokens=256),
        Sampling(n=2, temperature=0.6, top_p=0.95, max_tokens=256, seed=5),
    ]


def test_with_both_the_greedy_completions_are_shown() -> None:
    result = figures([["2", answer("3"), answer("3")]], stage_of(k=3, greedy=True))
    assert (result.greedy, result.pass_at_1, result.cons_at_k) == (1.0, pytest.approx(1 / 3), 0.0)
    assert (result.format, result.length_mean, result.truncated) == (0.0, 2.0, 0.0)
    assert result.samples == ({"id": "s/0", "prompt": "1+1=", "answer": "2", "completion": "2", "correct": True},)


def test_every_reward_function_is_a_figure() -> None:
    rubric = {
        "accuracy": 1.0,
        "form": {"name": "format", "weight": 0.2},
        "brief": {"name": "length", "max_tokens": 6, "buffer": 4},
    }
    result = figures([["2", "<think>a b c</think> <answer>2</answer>"]], stage_of(rubric, k=2))
    assert result.labels == {"accuracy": 1.0, "form": 0.5, "brief": pytest.approx(-0.375)}
    assert result.format == 0.5
    assert result.reward == pytest.approx((1 + 1.2 - 0.75) / 2)


def test_a_rubric_without_a_form_says_nothing_of_it() -> None:
    assert figures([["2"]], stage_of({"accuracy": 1.0}, k=1)).format is None


@pytest.mark.parametrize(
    ("rubric", "chosen", "correct", "greedy"),
    [
        ({"format": 0.2, "accuracy": 1.0}, "", "accuracy", 1.0),
        ({"format": 0.2, "accuracy": 1.0}, "format", "format", 0.0),
        ({"repetition": 1.0, "exact": {"name": "accuracy"}}, "", "exact", 1.0),
        ({"format": 1.0}, "", "format", 0.0),
        ({"helpful": {"name": "reward_model", "path": "m"}, "format": 1.0}, "", "format", 0.0),
    ],
)
def test_one_function_of_the_rubric_says_what_is_right(
    rubric: dict[str, Any], chosen: str, correct: str, greedy: float
) -> None:
    stage = stage_of(rubric, greedy=True, correct=chosen)
    assert Correctness.of(rubrics_of(stage)["default"], chosen).correct == correct
    if "helpful" not in rubric:
        assert figures([["2"]], stage).greedy == greedy


def test_a_reward_model_alone_calls_nothing_right() -> None:
    stage = stage_of({"helpful": {"name": "reward_model", "path": "m"}}, greedy=True)
    correctness = Correctness.of(rubrics_of(stage)["default"])
    result = summarize("set", correctness, [scored_group([3.5])], None)
    assert (result.correct, result.greedy, result.reward) == ("", None, 3.5)
    assert result.samples[0]["correct"] is None


def test_what_could_not_be_scored_is_in_no_figure_and_is_counted() -> None:
    groups = [[answer("2"), UNSCORABLE, answer("3"), answer("2")], [UNSCORABLE, *[answer("2")] * 3], [answer("3")] * 4]
    result = figures(groups, stage_of(k=4))
    assert result.unscored == 2
    assert result.pass_at_1 == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert result.cons_at_k == pytest.approx(2 / 3)
    assert (result.format, result.problems) == (1.0, 3)
    assert [sample["correct"] for sample in result.samples] == [True, True, False]


def test_a_problem_of_which_nothing_could_be_scored_leaves_the_mean() -> None:
    result = figures([[UNSCORABLE], *[["2"]] * 4], stage_of(k=1))
    assert (result.pass_at_1, result.cons_at_k, result.problems, result.unscored) == (1.0, 1.0, 5, 1)
    assert result.samples[0] == {
        "id": "s/0",
        "prompt": "1+1=",
        "answer": "2",
        "completion": UNSCORABLE,
        "correct": None,
    }


@pytest.mark.parametrize("groups", [[[UNSCORABLE]], [["2", UNSCORABLE]] * 20])
def test_above_the_error_rate_an_evaluation_fails_and_says_why(groups: list[list[str]]) -> None:
    with pytest.raises(ServiceError) as caught:
        figures(groups)
    message = str(caught.value)
    for part in ("evaluation of 'set'", "could not be scored", "max_error_rate = 0.3", "judge: it is down", "'s/"):
        assert part in message


def test_the_errors_of_one_set_are_not_those_of_another() -> None:
    stage = recipe(
        rewards={"max_error_rate": 0.2},
        eval={"sets": {"a": {"path": "t"}, "b": {"path": "t"}}, "samples": 0},
    ).stages[0]
    sets = {"a": [prompt(f"a/{i}") for i in range(20)], "b": [prompt("b/0")]}
    texts = {f"a/{i}": ["2"] for i in range(20)} | {"b/0": [UNSCORABLE]}
    with pytest.raises(ServiceError, match=r"evaluation of 'b': 1 of 1 completions"):
        evaluated(stage, sets, texts)


def test_completions_are_scored_while_others_are_being_generated() -> None:
    """The second completion of the group comes only after the first has been scored."""

    class Patient(Written):
        async def generate(
            self, group_id: str, prompt: Prompt, sampling: Sampling, finished: Callable[[Completion], None]
        ) -> RolloutGroup:
            first, second = completion(answer("2")), completion(answer("3"))
            finished(first)
            async with asyncio.timeout(10):
                while not here.scored:
                    await asyncio.sleep(0)
            return rollout_group([first, second], group_id=group_id, asked=prompt)

    class Watched(Here):
        scored = 0

        async def score(self, *arguments: Any) -> Any:
            score = await super().score(*arguments)
            self.scored += 1
            return score

    stage = stage_of(k=2)
    here = Watched(stage)

    async def run() -> Any:
        return await evaluate_sets(Patient({}), here, {"set": [prompt()]}, stage, seed=0)

    (result,) = asyncio.run(run())
    assert (result.pass_at_1, here.scored) == (0.5, 2)


@pytest.mark.parametrize(("k", "most"), [(2, 8), (16, 1)])
def test_no_more_is_asked_for_than_the_engines_will_soon_decode(k: int, most: int) -> None:
    class Counting(Written):
        now = most = 0

        async def generate(self, group_id: str, *arguments: Any) -> RolloutGroup:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.001)
            self.now -= 1
            return await super().generate(group_id, *arguments)

    stage = recipe(
        rollout={"max_sequences": 4},
        eval={"sets": {"set": {"path": "t"}}, "samples": k, "greedy": False},
    ).stages[0]
    groups = [["2"] * k] * 20
    sampler = Counting({f"s/{i}": group for i, group in enumerate(groups)})
    sampler.replicas = 2
    assert figures(groups, stage, sampler=sampler).pass_at_1 == 1.0
    assert sampler.most == most


def test_a_failure_of_an_engine_ends_the_evaluation() -> None:
    class Broken(Written):
        async def generate(self, group_id: str, *_: Any) -> RolloutGroup:
            if group_id.endswith("/1"):
                raise ServiceError("no replica is left")
            return await asyncio.Future()

    with pytest.raises(ServiceError, match="evaluation of 'set': no replica is left"):
        figures([["2"], ["2"]], sampler=Broken({}))


def test_a_handful_of_samples_is_kept() -> None:
    assert len(sampled(*["2"] * 50).samples) == 8


def test_the_record_has_the_names_of_metrics_jsonl() -> None:
    record = sampled("23").record()
    assert (record["pass@1"], record["cons@k"], record["greedy"]) == (0.5, 1.0, None)
    assert set(record) == {
        "set", "problems", "unscored", "correct", "greedy", "pass@1", "cons@k", "k", "win_rate", "compared",
        "judged_by", "format", "reward", "labels", "metrics", "length_mean", "truncated", "samples",
        "reflection", "reflections", "outcomes",
    }  # fmt: skip


def test_what_was_counted_of_every_problem_is_kept() -> None:
    kept = figures(
        [["3", answer("2"), answer("2"), answer("3"), answer(None)], [answer("2"), *[answer(v) for v in "3344"]]],
        stage_of(k=5, greedy=True),
    ).outcomes
    assert kept["greedy"] == [0, 1]
    assert (kept["n"], kept["right"]) == ([5, 5], [2, 1])
    assert kept["votes"] == [[2, 2], [1, 2, 2]]
    assert kept["majority"] == [0, 0]  # the earliest wins a tie
    assert kept["tokens"] == [2, 2]
    assert "won" not in kept
    assert len(kept["fingerprint"]) == 16


def test_what_could_not_be_scored_is_no_outcome() -> None:
    kept = figures([[answer("2"), UNSCORABLE, answer("3")], [answer("2")] * 3, [answer("2")] * 3]).outcomes
    assert (kept["n"], kept["right"], kept["majority"]) == ([2, 3, 3], [1, 3, 3], [1, 1, 1])


def test_the_fingerprint_is_of_questions_and_answers() -> None:
    asked = [prompt("s/0"), prompt("s/1")]
    same = [
        replace(each, prompt_id="t/0", text=f"Please: {each.text}", question=each.question or each.text)
        for each in asked
    ]
    assert fingerprint(asked) == fingerprint(same)
    assert fingerprint(asked) != fingerprint(asked[:1])
    assert fingerprint(asked) != fingerprint([asked[0], replace(asked[1], answer="3")])


def test_re_checks_are_counted_by_the_recipes_phrases() -> None:
    texts = ["<think>Wait, no. Hold on.</think><answer>2</answer>", answer("2")]
    result = figures([texts])
    assert (result.reflection, result.reflections) == (0.5, 1.0)
    assert result.outcomes["reflections"] == [1]
    stage = recipe(
        rewards={"rubrics": {"default": MATH}},
        eval={"sets": {"set": {"path": "t.jsonl"}}, "samples": 2, "greedy": False, "reflection": {"en": ["hm"]}},
    ).stages[0]
    assert (figures([texts], stage).reflection, figures([texts], stage).reflections) == (0.5, 0.5)
