"""The report: what it reads, what it says, and that nothing a model wrote can act in it."""

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.report.page import write_report
from orchestrator.report.phases import phases_of
from orchestrator.report.rejection import drops
from orchestrator.run.record import read_run
from rollout.errors import InputError
from tests.orchestrator.pipeline_run import SETS, write_run

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028 & <!-- <script>"
RECIPE = """
name = "arithmetic"
description = "additions"
seed = 7
[[stages]]
name = "cold-start"
kind = "sft"
loop = { steps = 3 }
[[stages]]
name = "reasoning"
kind = "grpo"
loop = { steps = 4 }
"""


def make_run(run_dir: Path, records: list[dict[str, Any]]) -> Path:
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "recipe.toml").write_text(RECIPE)
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return run_dir


def sft_records() -> list[dict[str, Any]]:
    steps = [
        {"kind": "step", "stage": "cold-start", "step": n, "time": 1000.0 + 10 * n, "learner/loss": 3.0 / n}
        for n in (1, 2, 3)
    ]
    start = {"kind": "stage", "stage": "cold-start", "event": "start", "time": 1000.0}
    return [start, *steps, {"kind": "stage", "stage": "cold-start", "event": "end", "time": 1031.0}]


def evaluation(stage: str, step: int, label: str, greedy: float | None, **more: Any) -> dict[str, Any]:
    record = {"kind": "eval", "stage": stage, "step": step, "set": "held-out", "time": 1000.0, "label": label}
    return {**record, "greedy": greedy, "pass@1": None, "cons@k": None, "k": 4, "problems": 256, **more}


def grpo_step(step: int, **more: Any) -> dict[str, Any]:
    return {"kind": "step", "stage": "reasoning", "step": step, "time": 2000.0 + step, "reward/mean": 0.5, **more}


def write_trajectories(run_dir: Path, step: int, completion: str, *, as_struct: bool = False, groups: int = 1) -> None:
    parts = pa.struct([("accuracy", pa.float64())]) if as_struct else pa.map_(pa.string(), pa.float64())
    rows = [
        {
            "step": step,
            "group_id": f"reasoning/{index}",
            "prompt": "2+3=",
            "answer": "5",
            "completion": completion,
            "token_ids": [1, 2, 3],
            "finish_reason": "stop",
            "reward": reward,
            "status": "ok",
            "reward_parts": {"accuracy": reward} if as_struct else [("accuracy", reward)],
            "advantage": float("nan"),
            "staleness": 1,
        }
        for index in range(groups)
        for reward in (0.0, 1.0)
    ]
    columns = {name: pa.array([row[name] for row in rows]) for name in rows[0] if name != "reward_parts"}
    table = pa.table(columns | {"reward_parts": pa.array([row["reward_parts"] for row in rows], parts)})
    folder = run_dir / "trajectories" / "reasoning"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / f"step-{step:06d}.parquet")


class Page(HTMLParser):
    """The report as a browser would take it apart: elements, attributes and text."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.samples: list[dict[str, Any]] = []
        self.source = path.read_text(encoding="utf-8")
        self.markup = re.sub(r">\s+<", "><", self.source)
        """The source without the white space between elements."""
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if attributes.get("id") == "samples-data" and not self.samples and data.startswith("["):
            self.samples = json.loads(data)
        elif tag not in ("script", "style"):
            self.words.append(data)

    @property
    def chart_titles(self) -> list[str]:
        return re.findall(r'<p class="chart-title">([^<]+?) ?<', self.markup)

    def charts(self, title: str) -> list[dict[str, Any]]:
        """What the tooltips of the charts of a title tell."""
        figures = re.findall(r'data-chart=\'([^\']*)\'><figcaption><p class="chart-title">([^<]+?) ?<', self.markup)
        return [json.loads(html.unescape(data)) for data, own in figures if own == title]


def report(run_dir: Path) -> Page:
    return Page(write_report(run_dir))


# Reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["missing", ""])
def test_a_directory_without_a_run_is_an_input_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"holds no run.*give the directory"):
        write_report(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_recipe_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("name = ")
    with pytest.raises(InputError, match=r"recipe\.toml: cannot be read"):
        write_report(tmp_path)


# Runs of every shape ---------------------------------------------------------------------------------------------


def test_a_run_that_has_recorded_nothing_gets_a_report(tmp_path: Path) -> None:
    page = report(make_run(tmp_path, []))
    assert "nothing recorded yet" in page.text
    assert page.chart_titles == []


def test_an_sft_only_run_shows_its_loss_and_where_it_stands(tmp_path: Path) -> None:
    page = report(make_run(tmp_path, sft_records()))
    assert page.chart_titles == ["Loss"]
    assert "stopped: cold-start, step 3 of 3" in page.text
    assert "Training samples" not in page.text


def test_the_loss_on_held_out_examples_is_drawn_beside_the_loss(tmp_path: Path) -> None:
    start, *steps = sft_records()
    steps[1]["held_out_loss/gsm8k"] = 2.5
    before = {"kind": "step", "stage": "cold-start", "step": 0, "time": 1000.0, "held_out_loss/gsm8k": 4.0}
    page = report(make_run(tmp_path, [start, before, *steps]))
    (chart,) = [json.loads(a["data-chart"] or "") for tag, a in page.elements if tag == "figure"]
    assert chart["x"] == [0, 1, 2, 3]
    assert {series["n"]: series["y"] for series in chart["s"]} == {
        "loss": [None, 3.0, 1.5, 1.0],
        "gsm8k": [4.0, None, 2.5, None],
    }


def test_a_stage_of_epochs_says_how_many_steps_they_are_once_it_has_counted(tmp_path: Path) -> None:
    start, *steps = sft_records()
    plan = {"kind": "stage", "stage": "cold-start", "event": "plan", "steps": 12, "time": 1000.0}
    page = report(make_run(tmp_path, [start, plan, *steps[:-1]]))
    assert "stopped: cold-start, step 3 of 12" in page.text


def test_a_finished_run_says_so_and_how_long_it_took_without_the_time_it_was_down(tmp_path: Path) -> None:
    resumed = [
        {"kind": "stage", "stage": "reasoning", "event": "start", "time": 2000.0},
        grpo_step(1),
        {"kind": "stage", "stage": "reasoning", "event": "start", "time": 90_000.0},
        {**grpo_step(2), "time": 90_001.0},
        {"kind": "stage", "stage": "reasoning", "event": "end", "time": 90_002.0},
    ]
    page = report(make_run(tmp_path, sft_records() + resumed))
    assert "Status finished" in page.text
    assert "Took 34 s" in page.text
    assert "resumed 1×" in page.text


def test_steps_that_a_resume_repeats_are_counted_once(tmp_path: Path) -> None:
    steps = [grpo_step(1), grpo_step(2), grpo_step(3), grpo_step(2, **{"reward/mean": 0.9})]
    page = report(make_run(tmp_path, steps))
    (chart,) = [json.loads(a["data-chart"] or "") for tag, a in page.elements if tag == "figure"]
    assert chart["x"] == [1, 2]
    assert chart["s"][0]["y"] == [0.5, 0.9]


def test_prompts_that_do_not_add_up_are_pointed_out(tmp_path: Path) -> None:
    counts = {"count/taken": 10, "count/trained": 6, "count/dropped": 1, "count/in_flight": 3}
    assert "should add up" not in report(make_run(tmp_path, [grpo_step(1, **counts)])).text
    counts["count/dropped"] = 0
    assert "should add up and do not" in report(make_run(tmp_path, [grpo_step(1, **counts)])).text


def test_every_reward_function_gets_a_line(tmp_path: Path) -> None:
    steps = [grpo_step(n, **{"reward/accuracy": 0.1, "reward/my_<b>": 0.2}) for n in (1, 2)]
    page = report(make_run(tmp_path, steps))
    (chart,) = [json.loads(a["data-chart"] or "") for tag, a in page.elements if tag == "figure"]
    assert [series["n"] for series in chart["s"]] == ["reward", "accuracy", "my_<b>"]


def test_values_that_are_not_finite_are_told_and_not_drawn(tmp_path: Path) -> None:
    steps = [grpo_step(1, **{"kl/ref": 0.1}), grpo_step(2, **{"kl/ref": float("nan")})]
    page = report(make_run(tmp_path, steps))
    assert "1 value was NaN or infinite" in page.text
    assert "nan" not in "".join(re.findall(r"<svg.*?</svg>", page.source, re.DOTALL)).lower()


# Evaluations -----------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_a_model_with_the_change_and_the_best(tmp_path: Path) -> None:
    records = [
        evaluation("cold-start", 0, "before", 0.01),
        evaluation("cold-start", 3, "after", 0.2),
        evaluation("reasoning", 0, "before", 0.2),
        evaluation("reasoning", 2, "during", 0.5),
        evaluation("reasoning", 4, "after", 0.7125),
    ]
    page = report(make_run(tmp_path, records))
    rows = re.findall(r'<a href="#stage-[^"]*">([^<]*)</a><small>([^<]*)</small></th><td>(.*?)</td>', page.markup)
    assert rows == [
        ("before cold-start", "the initial model", "1.0"),
        ("cold-start", "supervised fine-tuning from the initial model", '20.0<small class="change up">+19.0</small>'),
        ("reasoning", "reinforcement learning from cold-start", '<b>71.2</b><small class="change up">+51.2</small>'),
    ]
    assert "1.0 % → 71.2 % held-out, greedy accuracy: before cold-start → reasoning" in page.text


def test_an_unfinished_stage_shows_its_latest_evaluation_with_its_step(tmp_path: Path) -> None:
    records = [evaluation("reasoning", 2, "during", None, **{"pass@1": 0.5}), grpo_step(3)]
    page = report(make_run(tmp_path, records))
    assert "reasoning, step 2 reinforcement learning from cold-start 50.0" in page.text
    assert "held-out, pass@1 accuracy" in page.text


def test_every_reward_function_has_a_column_and_older_records_a_dash(tmp_path: Path) -> None:
    figures = {"correct": "accuracy", "labels": {"accuracy": 0.5, "<b>": 0.25}, "truncated": 0.5, "unscored": 2}
    more = {"reward": 0.75, "metrics": {"<i>.words": 3.0}}
    records = [evaluation("cold-start", 3, "after", 0.2), evaluation("reasoning", 4, "after", 0.5, **figures, **more)]
    page = report(make_run(tmp_path, records))
    overview, folded = (
        [re.sub(" <span.*", "", head) for head in re.findall(r'<th scope="col">(.*?)</th>', table)]
        for table in re.findall(r"<table class=\"results\">.*?</table>", page.markup, re.DOTALL)
    )
    assert overview == ["model", "greedy", "&lt;b&gt;", "truncated", "unscored"]
    assert folded[-2:] == ["reward", "&lt;i&gt;.words"]
    first, second = re.findall(r"</small></th>(.*?)</tr>", page.markup)[:2]
    assert first == "<td>20.0</td><td>–</td><td>–</td><td>–</td>"
    assert re.sub("<small.*?</small>", "", second) == "<td><b>50.0</b></td><td>0.250</td><td>50.0</td><td>2</td>"
    assert "Unscored: completions that nothing could score" in page.text


def test_a_problem_that_tests_judge_has_no_reference_answer(tmp_path: Path) -> None:
    sample = {"prompt": "def f():", "answer": "", "completion": "pass", "correct": None}
    page = report(make_run(tmp_path, [evaluation("reasoning", 4, "after", None, samples=[sample])]))
    assert "pass" in page.text
    assert "reference answer" not in page.text


def test_accuracy_during_a_stage_begins_where_its_model_began(tmp_path: Path) -> None:
    during = [evaluation("reasoning", n, "during", n / 10) for n in (2, 3)]
    after = [evaluation("cold-start", 3, "after", 0.1), *during, evaluation("reasoning", 4, "after", 0.7)]
    page = report(make_run(tmp_path, [*sft_records(), *after]))
    (chart,) = page.charts("Accuracy")
    assert chart["x"] == [0, 2, 3, 4]
    assert [(line["n"], line["y"]) for line in chart["s"]] == [("greedy", [10, 20, 30, 70])]


def test_samples_of_the_same_problem_stand_side_by_side(tmp_path: Path) -> None:
    def sample(completion: str, correct: bool, prompt: str = "2+3=", **more: Any) -> dict[str, Any]:
        same = {"prompt": "1+1=", "answer": "2", "completion": "2", "correct": True, **more}
        return {
            "samples": [same, {**same, "prompt": prompt, "answer": "5", "completion": completion, "correct": correct}]
        }

    records = [
        evaluation("cold-start", 0, "before", 0.0, **sample("4", False)),
        evaluation("cold-start", 3, "after", 0.0, **sample("6", False)),
        evaluation("reasoning", 4, "after", 1.0, **sample("5", True)),
    ]
    page = report(make_run(tmp_path, records))
    answers = "before cold-start ✗ wrong 4 cold-start ✗ wrong 6 reasoning ✓ correct 5"
    assert answers in page.text
    assert page.text.index(answers) < page.text.index("1+1=")  # those first on which models differ


def test_a_prompt_that_is_put_in_another_form_is_the_same_prompt(tmp_path: Path) -> None:
    records = [
        evaluation(stage, 1, "after", 0.5, samples=[{"id": "s/1", "prompt": form, "answer": "5", "completion": "5", "correct": True}])
        for stage, form in (("cold-start", "2+3="), ("reasoning", "User: 2+3?"))
    ]  # fmt: skip
    page = report(make_run(tmp_path, records))
    assert "User: 2+3? reference answer 5 cold-start ✓ correct 5 reasoning ✓ correct 5" in page.text


def test_what_was_preferred_is_told_with_what_it_was_compared_with(tmp_path: Path) -> None:
    def sample(won: float) -> dict[str, Any]:
        one = {"prompt": "hi", "answer": "", "completion": "lo", "correct": None, "baseline": "<b>well</b>", "won": won}
        return {"samples": [one], "win_rate": won}

    records = [
        evaluation(stage, 1, "after", None, **sample(won)) for stage, won in (("cold-start", 0.5), ("reasoning", 1.0))
    ]
    page = report(make_run(tmp_path, records))
    assert "hi compared with: <b>well</b> cold-start a tie lo reasoning ✓ preferred lo" in page.text
    assert "50.0 % → 100.0 % held-out, win rate" in page.text


# A pipeline ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twelve stages, with its report."""
    folder = write_run(tmp_path_factory.mktemp("run"))
    write_report(folder)
    return folder


def test_a_pipeline_of_twelve_stages_is_told_in_a_small_file(twelve: Path) -> None:
    page = Page(twelve / "report.html")
    assert re.findall(r"<h2>([^<]+)</h2>", page.source) == [
        "Results", "Pipeline", "Curves", "Data yields", "The same prompts, by every model", "Where the time went",
        "Stages", "Recipe",
    ]  # fmt: skip
    assert len(page.source) < 1_500_000
    assert "Students of reasoning · small-student · 494 million parameters" in page.text
    assert page.source.count('class="anew"') == 4 * (1 + len(SETS))
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = {str(attributes["href"])[1:] for tag, attributes in page.elements if tag == "a"}
    assert links <= ids


def test_what_became_of_samples_is_told_in_the_order_of_the_filters(twelve: Path) -> None:
    page = Page(twelve / "report.html")
    funnel = page.markup[page.markup.index('class="funnel"') : page.markup.index('id="answers"')]
    rows = re.findall(r"<p><span>([^<]+)</span>.*?<b>([^ ]+) <i>([^<]+)</i></b>", funnel)
    assert rows == [
        ("sampled", "8,192", "100.0 %"),
        ("cut at the token limit", "−402", "4.9 %"),
        ("wrong", "−3,011", "36.8 %"),
        ("mixed languages", "−61", "0.7 %"),
        ("code blocks", "−33", "0.4 %"),
        ("more than are kept of a prompt", "−2,417", "29.5 %"),
        ("nearly the same as another", "−212", "2.6 %"),
        ("kept as rows", "2,056", "25.1 %"),
    ]
    assert (
        "530 prompts · 18 not asked, for they share a passage with an evaluation set · rows for 471 of them"
        in page.text
    )


def test_samples_without_a_word_are_dropped_before_wrong_ones() -> None:
    yields = {"samples": 10, "mixed_languages": 1, "wrong": 2, "empty": 3, "kept": 4}
    assert drops({"yields": yields}) == (10, {"empty": 3, "wrong": 2, "mixed_languages": 1})


def test_the_phases_of_a_stage_add_up_to_its_time(twelve: Path) -> None:
    stages = {stage.name: stage for stage in read_run(twelve).stages}
    for stage in stages.values():
        assert sum(phases_of(stage).values()) == pytest.approx(stage.seconds)
    phases = phases_of(stages["zero"])
    assert phases["train"] == pytest.approx(200 * 1.2)
    assert phases["evaluate"] == pytest.approx(33)
    assert phases["score"] == pytest.approx(200 * 0.4)  # what goes on beside generation is generation
    assert phases["generate"] == pytest.approx(200 * 4.1)
    assert phases["start"] == pytest.approx(31)


def test_a_run_without_recorded_times_has_no_bars_and_an_older_one_says_what_it_lacks(tmp_path: Path) -> None:
    assert "Where the time went" not in report(make_run(tmp_path / "a", sft_records())).text
    older = [{**record, "time/step_s": 5.0, "time/train_s": 4.0, "time/idle_s": 1.0} for record in sft_records()[1:4]]
    assert "recorded before start-up and evaluations were timed" in report(make_run(tmp_path / "b", older)).text


def test_the_table_is_written_as_markdown_and_json(twelve: Path) -> None:
    assert (twelve / "table.md").read_text().startswith("| model | how it was made | gsm8k % |")
    assert len(json.loads((twelve / "table.json").read_text())["models"]) == 10


def test_what_no_model_may_do_none_of_twelve_can(tmp_path: Path) -> None:
    page = report(write_run(tmp_path, text=f"{HOSTILE}{{words}}{{answer}}"))
    assert "<img" not in page.source
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert not any(name.startswith("on") or name == "style" for _, a in page.elements for name in a)
    assert page.text.count("onerror=alert(1)") >= 10


# Training samples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_struct", [False, True])
def test_completions_come_with_reward_parts_and_verdict(tmp_path: Path, as_struct: bool) -> None:
    make_run(tmp_path, [grpo_step(1)])
    write_trajectories(tmp_path, 1, "five", as_struct=as_struct)
    ((stage,),) = [report(tmp_path).samples]
    (group,) = stage["steps"][0]["groups"]
    wrong, right = group["completions"]
    assert (wrong["right"], right["right"]) == (False, True)
    assert right["parts"] == [["accuracy", 1.0]]
    assert (right["reward"], right["advantage"], right["tokens"], group["size"]) == (1.0, None, 3, 2)


def test_steps_are_spread_evenly_from_first_to_last(tmp_path: Path) -> None:
    make_run(tmp_path, [grpo_step(n) for n in range(1, 31)])
    for step in range(1, 31):
        write_trajectories(tmp_path, step, "x")
    steps = [step["step"] for step in report(tmp_path).samples[0]["steps"]]
    assert len(steps) == 12
    assert (steps[0], steps[-1]) == (1, 30)


def scrambled(file: Path) -> None:
    """The footer stays, so the file opens; its data are gone."""
    whole = file.read_bytes()
    end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    file.write_bytes(whole[:4] + b"\xff" * (end - 4) + whole[end:])


def latin(file: Path) -> None:
    """A whole file, but its text is not UTF-8."""
    table = pa.table({"group_id": ["g"], "prompt": pa.array([b"\xe9"], pa.binary()).view(pa.string())})
    pq.write_table(table, file)


def folder_instead(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"PAR1 and then nothing"),
        lambda file: file.write_bytes(file.read_bytes()[:-20]),
        scrambled,
        latin,
        folder_instead,
    ],
    ids=["empty", "no footer", "cut short", "scrambled", "not UTF-8", "a folder"],
)
def test_a_damaged_trajectory_file_is_named_and_the_others_are_shown(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    make_run(tmp_path, [grpo_step(1), grpo_step(2)])
    for step in (1, 2):
        write_trajectories(tmp_path, step, "x")
    damage(tmp_path / "trajectories/reasoning/step-000002.parquet")
    page = report(tmp_path)
    assert [step["step"] for step in page.samples[0]["steps"]] == [1]
    assert " trajectories/reasoning/step-000002.parquet could not be read: " in page.text


def test_a_run_whose_only_trajectories_are_damaged_says_so(tmp_path: Path) -> None:
    make_run(tmp_path, [grpo_step(1)])
    folder = tmp_path / "trajectories/reasoning"
    folder.mkdir(parents=True)
    (folder / "step-<b>.parquet").write_bytes(b"nothing")
    page = report(tmp_path)
    assert page.samples == []
    assert "Training samples" in page.text
    assert "trajectories/reasoning/step-<b>.parquet could not be read" in page.text


def test_the_file_stays_small(tmp_path: Path) -> None:
    make_run(tmp_path, [grpo_step(n, **{"kl/ref": n / 7, "reward/accuracy": n / 9}) for n in range(1, 4001)])
    for step in range(1, 13):
        write_trajectories(tmp_path, step, "<think>" + "<&" * 20_000 + "the end", groups=6)
    page = report(tmp_path)
    assert len(page.source) < 1_000_000
    text = page.samples[0]["steps"][0]["groups"][0]["completions"][0]["text"]
    assert text.startswith("<think>")
    assert "characters left out" in text
    assert text.endswith("the end")


# Nothing that a model wrote can act ------------------------------------------------------------------------------


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    sample = {"prompt": HOSTILE, "answer": HOSTILE, "completion": HOSTILE, "correct": False}
    make_run(tmp_path, [grpo_step(1), evaluation("reasoning", 1, "after", 0.5, samples=[sample])])
    write_trajectories(tmp_path, 1, HOSTILE)
    page = report(tmp_path)
    assert page.samples[0]["steps"][0]["groups"][0]["completions"][0]["text"] == HOSTILE
    assert "<img" not in page.source
    assert "\u2028" not in page.source.split('id="samples-data">')[1].split("</script>")[0]
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 2
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.text.count("onerror=alert(1)") == 3


def test_the_page_asks_for_nothing_from_outside(tmp_path: Path) -> None:
    page = report(make_run(tmp_path, sft_records()))
    policy = next(a["content"] or "" for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not [a for _, a in page.elements if "src" in a or str(a.get("href", "#"))[0] != "#"]


def test_half_a_surrogate_pair_does_not_stop_the_report(tmp_path: Path) -> None:
    sample = {"prompt": "p", "answer": "a", "completion": "broken \ud83d emoji", "correct": True}
    page = report(make_run(tmp_path, [evaluation("reasoning", 1, "after", 0.5, samples=[sample])]))
    assert "broken ? emoji" in page.text


def test_the_report_is_replaced_at_once_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", sft_records())
    assert write_report(run_dir) == write_report(run_dir) == run_dir / "report.html"
    assert sorted(path.name for path in run_dir.iterdir()) == [
        "metrics.jsonl", "recipe.toml", "report.html", "table.json", "table.md",
    ]  # fmt: skip


# Preferences -----------------------------------------------------------------------------------------------------


def test_a_stage_of_pairs_shows_its_curves_and_what_it_makes_of_held_out_ones(tmp_path: Path) -> None:
    step = {
        "kind": "step",
        "stage": "helpful",
        "learner/loss": 0.5,
        "preference/accuracy": 0.75,
        "preference/margin": 0.3,
    }
    judged = {
        "kind": "eval",
        "stage": "helpful",
        "set": "test <b>",
        "pairs": 1200,
        "log_loss": 0.6931,
        "margin_mean": 0,
    }
    records = [
        {**judged, "step": 0, "label": "before", "accuracy": 0.5, "calibration_error": 0.02},
        *({**step, "step": n} for n in (1, 2)),
        {**judged, "step": 2, "label": "after", "accuracy": 0.875, "calibration_error": None},
    ]
    make_run(tmp_path, records)
    (tmp_path / "recipe.toml").write_text('name = "r"\n[[stages]]\nname = "helpful"\nkind = "reward_model"\n')
    page = report(tmp_path)
    assert page.chart_titles == ["Loss", "Pairs in order", "Margin"]
    assert "test <b>, before 1,200 50.0 % 0.693 2.0 %" in page.text
    assert "test <b>, after 1,200 87.5 % 0.693 –" in page.text
    assert "Results" not in page.text
