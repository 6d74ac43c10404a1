"""What the pipeline makes of a stage before it runs, and the files of rejection sampling."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.load import parse_recipe
from orchestrator.config.stage_kinds import STAGE_KINDS
from orchestrator.pipeline import KINDS, with_rows_of_stages
from orchestrator.run.sampled_rows import read_samples, write_part, write_rows
from orchestrator.run.store import RunStore
from orchestrator.stages.reject import sample_rows
from rewards.types import FunctionSpec, Score, ScoredGroup
from rollout.data.rows import Row
from rollout.data.sources import load_rows
from rollout.errors import InputError
from tests.factories import completion, prompt, scored_group

STAGES = [
    {"name": "sampled", "kind": "reject", "data": {"sources": {"a": {"task": "arithmetic"}}}},
    {"name": "tuned", "kind": "sft", "data": {"sources": {"own": {"stage": "sampled"}, "b": {"task": "arithmetic"}}}},
]
RECIPE = parse_recipe({"name": "r", "model": {"path": "org/model"}, "stages": STAGES})


ACCURACY = FunctionSpec(name="accuracy", label="accuracy")
FLAGS = FunctionSpec(name="readability", label="readability", weight=0.0)


def asked(keeps_thought: bool = True) -> Row:
    return Row(
        row_id="s/0",
        source="s",
        rubric="default",
        question="the question",
        answer="2",
        completion="",
        keeps_thought=keeps_thought,
        fields={},
    )


def row(prompt_id: str, sample: int) -> dict[str, Any]:
    return {
        "prompt_id": prompt_id,
        "sample": sample,
        "source": "a",
        "prompt": "2+3",
        "answer": "5",
        "completion": "so 5",
        "thought_removed": "",
        "num_tokens": 3,
        "finish_reason": "stop",
        "right": True,
        "reward": 1.0,
        "reward_parts": [("accuracy", 1.0)],
        "flags": [],
        "model": "org/model",
        "seed": 7,
    }


def test_every_kind_has_a_page() -> None:
    assert set(KINDS) == set(STAGE_KINDS)


def test_rows_of_a_stage_are_read_as_worked_examples(tmp_path: Path) -> None:
    store = RunStore(tmp_path, RECIPE)
    write_rows(store.data_folder("sampled"), [row("a/0", 0), row("a/1", 2)])
    stage = with_rows_of_stages(RECIPE.stages[1], store)
    assert stage.data.sources["b"] == RECIPE.stages[1].data.sources["b"]
    loaded = load_rows(stage.data.sources["own"].source("own"), 0)
    assert [(each.question, each.fields["answer"], each.completion) for each in loaded] == [("2+3", "5", "so 5")] * 2
    assert loaded[1].fields["prompt_id"] == "a/1"
    assert loaded[1].fields["seed"] == "7"


def test_rows_of_questions_without_an_answer_are_learned_from(tmp_path: Path) -> None:
    store = RunStore(tmp_path, RECIPE)
    write_rows(store.data_folder("sampled"), [row("a/0", 0) | {"answer": ""}])
    (loaded,) = load_rows(with_rows_of_stages(RECIPE.stages[1], store).data.sources["own"].source("own"), 0)
    assert (loaded.question, loaded.completion) == ("2+3", "so 5")


def test_samples_are_added_file_by_file_and_a_half_written_one_is_none(tmp_path: Path) -> None:
    assert read_samples(tmp_path) == []
    write_part(tmp_path, [row("a/0", 0), row("a/0", 1)])
    (tmp_path / "part-000001.part").write_bytes(b"half")
    write_part(tmp_path, [row("a/1", 0)])
    assert [(each["prompt_id"], each["sample"]) for each in read_samples(tmp_path)] == [
        ("a/0", 0),
        ("a/0", 1),
        ("a/1", 0),
    ]


def test_no_row_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sampled: not one sample is kept") as caught:
        write_rows(tmp_path / "sampled" / "data", [])
    assert f"rayzero train {tmp_path} stages.sampled.reject.keep=best" in str(caught.value)


def test_a_row_says_where_it_is_from() -> None:
    made = scored_group([1.0, 0.0])
    first = made.scores[0]
    group = ScoredGroup(
        group=made.group,
        completions=made.completions[:1],
        scores=(
            Score(
                value=1.2,
                status="ok",
                breakdown={"accuracy": 1.0, "format": 1.0},
                seconds=first.seconds,
                metrics={"readability.code_blocks": 1.0, "readability.repetitive": 0.0, "format.other": 1.0},
            ),
        ),
        num_errors=1,
        seconds=0.0,
    )
    (made_row,) = sample_rows(group, {"s/0": asked()}, "org/model", {"default": (ACCURACY,)})
    assert made_row["prompt"] == "the question"
    assert (made_row["sample"], made_row["model"], made_row["seed"]) == (0, "org/model", group.completions[0].seed)
    assert (made_row["right"], made_row["reward"], made_row["flags"]) == (True, 1.2, ["code_blocks"])


CODE = "```python\nprint(2)\n```"


@pytest.mark.parametrize(
    ("text", "asked_as", "learned", "removed", "flags"),
    [
        ("<think>hm</think> <answer>2</answer>", "1+1=", "<answer>2</answer>", "hm", []),
        (f"<think>{CODE}</think>\n\nHello!", "1+1=", "Hello!", CODE, []),
        (f"<think>hm</think>\n\n{CODE}", "1+1=", CODE, "hm", ["code_blocks", "code_only"]),
        ("Hello!", "1+1=", "Hello!", "", []),
        # The prompt has opened the thought, so the row closes it.
        ("hm\n</think>\n\nHello!", "hi<think>\n", "\n</think>\n\nHello!", "hm", []),
        ("hm", "hi<think>\n", "", "hm", []),
        ("<think>hm</think><answer> </answer>", "1+1=", "", "hm", []),
    ],
)
def test_a_simple_question_is_answered_without_a_thought(
    text: str, asked_as: str, learned: str, removed: str, flags: list[str]
) -> None:
    group = scored_group([1.0], completions=[completion(text)], asked=prompt(text=asked_as))
    (made,) = sample_rows(group, {"s/0": asked(keeps_thought=False)}, "m", {"default": (ACCURACY, FLAGS)})
    assert (made["completion"], made["thought_removed"], made["flags"]) == (learned, removed, flags)
    (whole,) = sample_rows(group, {"s/0": asked()}, "m", {"default": (ACCURACY, FLAGS)})
    assert (whole["completion"], whole["thought_removed"]) == (text, "")
