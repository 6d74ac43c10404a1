"""Completions against responses that were given beforehand, by hand-counted wins, and what a recipe may say of them."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.rubrics import preferring_label, rubrics_of
from orchestrator.evaluation.figures import EvalResult
from orchestrator.evaluation.sets import evaluate_sets
from orchestrator.evaluation.win_rate import Baselines, Contest, sample_of
from orchestrator.results.columns import columns, in_words
from rewards.text.response import read_response
from rewards.types import Sample, Score
from rollout.errors import InputError, ServiceError
from rollout.types import Baseline, Prompt
from tests.factories import prompt
from tests.orchestrator.evaluation.evaluated import UNSCORABLE, Here, Written
from tests.orchestrator.factories import fault, recipe, write_rows

BRIEF = {"brief": {"name": "length", "max_tokens": 100, "buffer": 100}, "format": 0.2}
"""Fewer tokens are better."""
WORDS = "one two three four five six seven eight"


def recipe_of(rubric: dict[str, Any] = BRIEF, *, k: int = 0, **chosen: Any) -> Recipe:
    """One evaluation set, called `set`, with responses in column `old`. `chosen`: keys of it."""
    keys = {"path": "t.jsonl", "baseline_column": "old", **chosen}
    return recipe(
        rewards={"rubrics": {"default": {"accuracy": 1.0}, "general": rubric}, "max_error_rate": 0.3},
        eval={"sets": {"set": {"rubric": "general", **keys}}, "samples": k, "greedy": not k},
    )


def stage_of(*rubric: dict[str, Any], **chosen: Any) -> Stage:
    return recipe_of(*rubric, **chosen).stages[0]


def said(words: int) -> str:
    """A text that is one token more than its words."""
    return " ".join(WORDS.split()[:words])


def asked(name: str, words: int, text: str = "") -> Prompt:
    baseline = Baseline(text=text or said(words), num_tokens=words + 1)
    return prompt(name, rubric="general", answer="", baseline=baseline)


class Counting(Here):
    """Remembers what it was asked to score."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.texts: list[str] = []

    async def score(self, rubric: str, sample: Sample, budget: Any) -> Score:
        self.texts.append(sample.completion)
        return await super().score(rubric, sample, budget)


def judged(
    stage: Stage, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]], times: int = 1
) -> tuple[EvalResult, list[str]]:
    """The last of so many evaluations by one stage, and all texts that were scored."""
    written = Written({each.prompt_id: own for each, own in zip(prompts, texts, strict=True)})

    async def run() -> tuple[EvalResult, list[str]]:
        here, baselines = Counting(stage), Baselines()
        try:
            for _ in range(times):
                (result,) = await evaluate_sets(written, here, {"set": prompts}, stage, 5, baselines)
            return result, here.texts
        finally:
            await here.close()

    return asyncio.run(asyncio.wait_for(run(), 120))


def test_a_tie_is_half_a_win() -> None:
    prompts = [asked(f"s/{i}", 4) for i in range(4)]
    result, _ = judged(stage_of(judged_by="brief"), prompts, [[said(2)], [said(3)], [said(4)], [said(5)]])
    assert (result.win_rate, result.compared, result.judged_by) == ((1 + 1 + 0.5 + 0) / 4, 4, "brief")
    assert [(each["baseline"], each["won"]) for each in result.samples] == [(said(4), won) for won in (1, 1, 0.5, 0)]


def test_of_several_samples_a_prompt_counts_by_the_share_that_wins() -> None:
    prompts = [asked("s/0", 4), asked("s/1", 2)]
    result, _ = judged(stage_of(k=4), prompts, [[said(1), said(5), said(5), said(4)], [said(3)] * 4])
    assert result.win_rate == pytest.approx(((1 + 0 + 0 + 0.5) / 4 + 0) / 2)


def test_without_a_judge_the_whole_reward_prefers() -> None:
    form = "<think>a</think> <answer>b</answer>"
    stage = stage_of({"format": 1.0, "brief": {**BRIEF["brief"], "weight": 0.1}})  # type: ignore[dict-item]
    result, _ = judged(stage, [asked("s/0", 1)], [[form]])
    assert (result.win_rate, result.judged_by) == (1.0, "")
    by_length, _ = judged(stage_of(judged_by="brief"), [asked("s/0", 1)], [[form]])
    assert by_length.win_rate == 0.0


def test_baselines_are_scored_once_a_stage() -> None:
    prompts = [asked("s/0", 4), asked("s/1", 5)]
    result, texts = judged(stage_of(), prompts, [[said(1)], [said(2)]], times=3)
    assert result.win_rate == 1.0
    assert [texts.count(said(words)) for words in (4, 5, 1, 2)] == [1, 1, 3, 3]


def test_what_could_not_be_scored_is_neither_won_nor_lost_and_is_counted() -> None:
    prompts = [asked(f"s/{i}", 4, UNSCORABLE if i == 1 else "") for i in range(4)]
    completions = [[said(2)], [said(2)], [UNSCORABLE], [said(5)]]
    result, texts = judged(stage_of(), prompts, completions, times=2)
    assert (result.win_rate, result.compared, result.unscored, result.problems) == (0.5, 2, 2, 4)
    assert [each["won"] for each in result.samples] == [1.0, None, None, 0.0]
    # What failed is tried again by the next evaluation; the others are not.
    assert [texts.count(said(4)), texts.count(UNSCORABLE)] == [3, 4]


def test_the_error_rate_is_one_of_the_whole_set() -> None:
    """Failures that come first, or alone again the next time, are not all there is."""
    prompts = [asked(f"s/{i}", 4, UNSCORABLE if i < 10 else "") for i in range(40)]
    result, _ = judged(stage_of(), prompts, [[said(2)]] * 40, times=2)
    assert (result.win_rate, result.compared, result.unscored) == (1.0, 30, 10)


def test_too_many_baselines_that_fail_end_the_evaluation() -> None:
    prompts = [asked(f"s/{i}", 4, UNSCORABLE) for i in range(20)]
    with pytest.raises(
        ServiceError, match=r"evaluation of 'set': 20 of 20 completions could not be scored .* it is down"
    ):
        judged(stage_of(), prompts, [[said(2)]] * 20)


def test_a_question_without_a_right_answer_has_no_accuracy() -> None:
    result, _ = judged(stage_of(), [asked("s/0", 4)], [["<think>a</think><answer>b</answer>"]])
    assert (result.correct, result.greedy, result.format) == ("", None, 1.0)
    assert result.samples[0]["correct"] is None
    # Where the recipe says which function tells, it does.
    chosen, _ = judged(stage_of(correct="format"), [asked("s/0", 4)], [["<think>a</think><answer>b</answer>"]])
    assert (chosen.correct, chosen.greedy) == ("format", 1.0)


def test_the_figure_is_shown_and_recorded() -> None:
    result, _ = judged(stage_of(judged_by="brief"), [asked("s/0", 4)], [[said(4)]])
    record = result.record()
    assert {key: record[key] for key in ("win_rate", "compared", "judged_by", "greedy")} == {
        "win_rate": 0.5, "compared": 1, "judged_by": "brief", "greedy": None,
    }  # fmt: skip
    assert in_words(record)[:2] == ["win rate 50.0 %", "format 0.0 %"]
    without = record | {"win_rate": None}
    assert "win rate" not in [column.head for column in columns([without])]
    assert [column.cell(without) for column in columns([record]) if column.head == "win rate"] == ["–"]


def test_a_baseline_is_a_reply_where_the_prompt_opens_a_thought_that_it_does_not_close() -> None:
    opened = prompt(text="<|user|>hi<|assistant|><think>\n", baseline=Baseline(text="hello", num_tokens=2))
    assert sample_of(opened).prompt == opened.text
    assert read_response(opened.text, sample_of(opened).completion).answer == "hello"
    closed = prompt(text=opened.text, baseline=Baseline(text="hm</think>hello", num_tokens=4))
    assert (sample_of(closed).prompt, sample_of(closed).num_tokens) == (opened.text, 4)


JUDGE = {"name": "judge", "endpoint": "http://h/v1", "model": "m"}
MODEL = {"name": "reward_model", "path": "m"}


@pytest.mark.parametrize(
    ("rubric", "chosen", "label"),
    [
        ({"format": 1.0, "helpful": MODEL, "graded": JUDGE}, "", "helpful"),
        ({"format": 1.0, "graded": JUDGE}, "", "graded"),
        ({"helpful": MODEL, "format": 1.0}, "format", "format"),
        ({"format": 1.0}, "", ""),
    ],
)
def test_who_prefers(rubric: dict[str, Any], chosen: str, label: str) -> None:
    assert preferring_label(rubrics_of(stage_of(rubric))["general"], chosen) == label


def test_what_sees_a_whole_group_cannot_compare(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ranked = {"ranked": {"name": "mine.py:rank", "group": True}}
    functions = rubrics_of(stage_of(ranked | {"helpful": MODEL}))["general"]
    assert preferring_label(functions) == "helpful"
    with pytest.raises(InputError, match="'ranked' scores a whole group"):
        preferring_label(functions, "ranked")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def rank(prompt, completions, reference): return []\n")
    write_rows(tmp_path / "t.jsonl", [{"prompt": "hi", "old": "hello"}])
    assert "rewards.rubrics.general: 'ranked' scores a whole group" in fault(recipe_of(ranked))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"judged_by": "breif"},
            "eval.sets.set.judged_by = 'breif'; did you mean 'brief'?; rubric 'general' has: brief",
        ),
        ({"judged_by": "brief", "baseline_column": ""}, "judged_by = 'brief' compares with nothing"),
        ({"messages_column": "chat"}, "conversations are not asked"),
    ],
)
def test_settings_that_make_no_sense(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe_of(**chosen)
    assert message in str(caught.value)


def test_preference_pairs_are_asked_where_one_of_the_two_is_to_win_against() -> None:
    pairs = {"chosen_column": "good", "rejected_column": "bad"}
    both = stage_of(**pairs, baseline_column="good").eval
    assert (list(both.pair_sets), list(both.prompt_sets)) == (["set"], ["set"])
    alone = stage_of(**pairs, baseline_column="").eval
    assert (list(alone.pair_sets), list(alone.prompt_sets)) == (["set"], [])


def test_what_the_judging_function_says_nothing_of_is_not_compared() -> None:
    silent, said_so = (Score(value=1.0, status="ok", breakdown=part, seconds=0.0) for part in ({"a": 1.0}, {"b": 2.0}))
    contest = Contest(judged_by="b", baselines={"s/0": said_so, "s/1": silent}, num_errors=0)
    assert contest.outcome("s/0", said_so) == 0.5
    assert contest.outcome("s/0", silent) is None
    assert contest.outcome("s/1", said_so) is None
