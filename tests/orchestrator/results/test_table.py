"""The table of a run: which models are in it, what is compared with what, and its forms as text."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.results.table import Results, as_json, results_of
from orchestrator.results.table_text import PARTLY, markdown, markdown_of_runs, notes, parts
from orchestrator.run.record import read_run
from rollout.errors import InputError
from tests.orchestrator.pipeline_run import SETS, write_run

OWN = 'model_from = "own"\n'


def stage(name: str, kind: str, rest: str = "", model: str = "org/base") -> str:
    return f'[[stages]]\nname = "{name}"\nkind = "{kind}"\n{rest}model.path = "{model}"\n'


def evaluation(stage: str, greedy: float | None, *, label: str = "after", step: int = 9, **more: Any) -> dict[str, Any]:
    record = {"kind": "eval", "stage": stage, "step": step, "label": label, "set": "sums", "problems": 50}
    return {**record, "greedy": greedy, "k": 4, "length_mean": 12.0, **more}


def results(folder: Path, stages: str, *records: dict[str, Any]) -> Results:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(f'name = "r"\nseed = 3\n{stages}')
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return results_of(read_run(folder))


def shown(table: Results) -> dict[str, dict[str, str]]:
    columns = [*table.by_set, *table.over_sets]
    return {row.title: {c.head: c.figure.bare(c.cell(row).value) for c in columns} for row in table.rows}


def changes(table: Results) -> dict[str, float | None]:
    return {row.title: table.over_sets[0].change(row) for row in table.rows}


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results_of(read_run(write_run(tmp_path_factory.mktemp("run"))))


# Which models, and what they are compared with -------------------------------------------------------------------


def test_every_judged_model_has_a_row_and_students_stand_apart(twelve: Results) -> None:
    assert [[row.title for row in rows] for _, rows in twelve.groups] == [
        ["base", "zero", "cold-start", "reasoning", "tuned", "all-scenarios", "preferred"],
        ["student", "student-rl", "student-rl-alone"],
    ]
    assert list(twelve.initial.values()) == ["Qwen/Qwen2.5-1.5B", "small-student"]
    origins = {row.title: (row.origin, row.taught_by) for row in twelve.rows}
    assert origins["base"] == ("of the initial model", ())
    assert origins["reasoning"] == ("from cold-start", ())
    assert origins["tuned"] == ("from the initial model, rows of samples (by reasoning)", ())
    assert origins["all-scenarios"] == ("from tuned, scored by helpful", ())
    assert origins["student"] == ("from the initial model, rows of samples (by reasoning)", ("reasoning",))


def test_a_model_is_compared_with_the_one_that_it_was_trained_from(twelve: Results) -> None:
    compared = {row.title: row.before.title if row.before else None for row in twelve.rows}
    assert compared == {
        "base": None,
        "zero": "base",
        "cold-start": "base",
        "reasoning": "cold-start",
        "tuned": "base",
        "all-scenarios": "tuned",
        "preferred": "tuned",
        "student": None,
        "student-rl": "student",
        "student-rl-alone": None,
    }


def test_the_initial_model_has_one_row_however_often_it_was_judged(tmp_path: Path) -> None:
    table = results(
        tmp_path,
        stage("zero", "grpo") + stage("other", "grpo", OWN) + stage("last", "eval"),
        evaluation("zero", 0.1, label="before", step=0),
        evaluation("zero", 0.5),
        evaluation("other", 0.1, label="before", step=0),
        evaluation("other", 0.4),
        evaluation("last", 0.4, step=0),
    )
    assert changes(table) == {"before zero": None, "zero": 0.4, "other": pytest.approx(0.3), "last": None}
    assert [row.begins_line for row in table.rows] == [True, True, True, False]


def test_a_model_that_was_judged_again_is_one_model(tmp_path: Path) -> None:
    """By a stage of kind `eval`, on a set that its own stage did not have; what its own stage found comes first."""
    table = results(
        tmp_path,
        stage("cold", "sft") + stage("judged", "eval") + stage("rl", "grpo"),
        evaluation("cold", 0.2),
        evaluation("judged", None, set="chat", win_rate=0.1, step=0),
        evaluation("judged", 0.3, step=0),
        evaluation("rl", 0.7),
        evaluation("rl", None, set="chat", win_rate=0.6),
    )
    assert changes(table) == {"cold": None, "judged": None, "rl": pytest.approx(0.5)}
    (won,) = [column for column in table.over_sets if column.figure.key == "win_rate"]
    last = table.rows[-1]
    assert won.change(last) == pytest.approx(0.5)
    assert last.before is not None
    assert last.before.title == "cold"


def test_a_stage_that_goes_on_shows_its_newest_evaluation(tmp_path: Path) -> None:
    first, second = evaluation("rl", 0.2, label="during", step=1000), evaluation("rl", 0.3, label="during", step=2000)
    assert list(shown(results(tmp_path, stage("rl", "grpo"), first, second))) == ["rl, step 2,000"]


def test_nothing_evaluated_is_a_table_without_rows(tmp_path: Path) -> None:
    table = results(tmp_path, stage("rl", "grpo"))
    assert (table.rows, table.by_set, table.over_sets, list(parts(table, 100))) == ([], [], [], [])
    assert markdown(table) == "nothing was evaluated yet\n"
    assert as_json(table)["models"] == []


# Columns ---------------------------------------------------------------------------------------------------------


def test_of_one_set_the_table_holds_its_figures(tmp_path: Path) -> None:
    record = evaluation("rl", 0.5, format=1.0, **{"pass@1": 0.25, "cons@k": 0.75})
    assert shown(results(tmp_path, stage("rl", "grpo"), record)) == {
        "rl": {"greedy": "50.0", "pass@1": "25.0", "cons@4": "75.0", "format": "100.0", "length": "12.0"}
    }


def test_of_several_sets_it_holds_an_accuracy_each_and_means(tmp_path: Path) -> None:
    win = {"set": "chat", "win_rate": 0.6}
    table = results(
        tmp_path,
        stage("a", "sft") + stage("b", "sft"),
        evaluation("a", 0.2),
        evaluation("a", 0.6, set="cups"),
        evaluation("a", None, **win),
        evaluation("b", 0.6),
        evaluation("b", None, **win),
    )
    rows = shown(table)
    assert rows["a"] == {
        "sums": "20.0", "cups": "60.0", "chat win rate": "60.0", "greedy": "40.0", "win rate": "60.0", "length": "12.0",
    }  # fmt: skip
    assert (rows["b"]["cups"], rows["b"]["greedy"]) == ("–", "60.0")
    # A mean over other sets is not compared, neither with the model before nor for the best.
    assert changes(table)["b"] is None
    greedy = next(column for column in table.over_sets if column.key == "mean/greedy")
    assert greedy.best(table.rows) == set()
    assert table.by_set[0].change(table.rows[1]) == pytest.approx(0.4)
    assert "60.0*" in markdown(table)
    assert "\\* over fewer sets" in markdown(table)


def test_any_figure_that_was_recorded_is_a_column(tmp_path: Path) -> None:
    record = evaluation(
        "rl", 0.5, win_rate=0.25, labels={"language_consistency": 0.9, "brevity": 0.5}, novelty_index=2.0, compared=9
    )
    figures = shown(results(tmp_path, stage("rl", "grpo"), record))["rl"]
    assert figures == {
        "greedy": "50.0", "win rate": "25.0", "length": "12.0", "language": "90.0", "brevity": "0.500",
        "novelty index": "2.000",
    }  # fmt: skip


def test_counts_add_up_over_sets(tmp_path: Path) -> None:
    table = results(
        tmp_path, stage("rl", "grpo"), evaluation("rl", 0.5, unscored=2), evaluation("rl", 0.5, set="b", unscored=3)
    )
    assert shown(table)["rl"]["unscored"] == "5"


def test_the_best_is_marked_by_what_is_shown_and_only_where_there_is_a_better(tmp_path: Path) -> None:
    stages = stage("a", "sft") + stage("b", "sft") + stage("c", "sft")
    table = results(tmp_path, stages, evaluation("a", 0.5), evaluation("b", 0.50001), evaluation("c", 0.1))
    greedy, length = table.over_sets
    assert (greedy.best(table.rows), length.best(table.rows)) == ({"a", "b"}, set())
    assert greedy.best(table.rows[:2]) == set()


# As text ---------------------------------------------------------------------------------------------------------


def test_on_a_terminal_every_part_fits_and_every_set_is_there(twelve: Results) -> None:
    shown = list(parts(twelve, 100))
    for part in shown:
        cells = zip(part.heads, *part.rows, strict=True)
        assert sum(max(map(len, column)) + 3 for column in cells) + 1 <= 100
        assert [row[0] for row in part.rows][:2] == ["base", "zero"]
    by_set = [head for part in shown for head in part.heads if part.title == "greedy accuracy by set"]
    assert [head for head in by_set if head != "model"] == [
        "gsm8k %", "aime24 %", "amc23 %", "humaneval %", "style win rate %", "cups %",
    ]  # fmt: skip
    assert shown[-1].heads[:3] == ["model", "greedy %", "change"]
    assert shown[-1].left_out == ("language %", "truncated %")
    assert shown[-1].rows[-1][0] == "student-rl-alone †"
    assert notes(twelve) == ["† trained from small-student"]


def test_a_small_table_is_in_one_part(tmp_path: Path) -> None:
    table = results(tmp_path, stage("a", "sft"), evaluation("a", 0.2), evaluation("a", 0.6, set="cups"))
    (part,) = parts(table, 100)
    assert part.title == "greedy accuracy by set, and means"
    assert part.heads == ["model", "sums %", "cups %", "mean greedy %", "mean length"]
    assert len(list(parts(table, 40))) == 2


def test_markdown_tells_change_and_best(tmp_path: Path) -> None:
    table = results(tmp_path, stage("a", "sft") + stage("b", "grpo"), evaluation("a", 0.2), evaluation("b", 0.7))
    head, rule, first, second, *_ = markdown(table).splitlines()
    assert head == "| model | how it was made | greedy % | length |"
    assert rule == "| --- | --- | ---: | ---: |"
    assert first == "| a | supervised fine-tuning from the initial model | 20.0 | 12.0 |"
    assert second == "| b | reinforcement learning from a | **70.0** (+50.0) | 12.0 |"


def test_records_without_any_figure_are_no_table_on_a_terminal(tmp_path: Path) -> None:
    table = results(tmp_path, stage("a", "sft"), evaluation("a", None, length_mean=None))
    assert len(table.rows) == 1
    assert list(parts(table, 100)) == []
    assert markdown(table).startswith("| model | how it was made |")


def test_a_mean_over_fewer_sets_says_so_wherever_it_is_shown(tmp_path: Path) -> None:
    stages = stage("a", "sft") + stage("b", "grpo")
    whole = evaluation("a", 0.2), evaluation("b", 0.7), evaluation("a", 0.4, set="cups")
    table = results(tmp_path / "1", stages, *whole)
    assert (parts(table, 100).__next__().rows[1][3], notes(table)) == ("70.0*", [PARTLY])
    assert f"\\{PARTLY}" in markdown(table)
    # A figure that a model lacks altogether bears no sign.
    lacking = results(tmp_path / "2", stages, evaluation("a", 0.2), evaluation("b", None, **{"pass@1": 0.5}))
    assert notes(lacking) == []
    assert PARTLY not in markdown(lacking)


def test_a_name_cannot_break_the_table(tmp_path: Path) -> None:
    line = markdown(results(tmp_path, stage("a", "sft"), evaluation("a", 0.2, labels={"x|y": 1.0}))).splitlines()[0]
    assert line.endswith("| x\\|y |")


def test_several_runs_are_one_table_of_means_and_ranges(tmp_path: Path) -> None:
    stages = stage("a", "sft")
    tables = [results(tmp_path / str(i), stages, evaluation("a", greedy)) for i, greedy in enumerate((0.2, 0.3, 0.7))]
    text = markdown_of_runs(tables)
    assert "| a | supervised fine-tuning from the initial model | 40.0 (20.0–70.0) | 12.0 |" in text
    assert "Mean of 3 runs (seeds 3, 3, 3)" in text
    # Of a run in which nothing was cut the table has no column for it; beside another it has.
    cut = results(tmp_path / "4", stages, evaluation("a", 0.2, truncated=0.1))
    short = results(tmp_path / "5", stages, evaluation("a", 0.2, truncated=0.0))
    for pair in ([short, cut], [cut, short]):
        assert markdown_of_runs(pair).splitlines()[2].endswith("| 20.0 | 12.0 | 5.0 (0.0–10.0) |")
    unmeasured = results(tmp_path / "3", stages, evaluation("a", None, **{"pass@1": 0.5}))
    assert "| – | 12.0 |" in markdown_of_runs([tables[0], unmeasured])


def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one = results(tmp_path / "1", stage("a", "sft"), evaluation("a", 0.2))
    two = results(tmp_path / "2", stage("a", "sft") + stage("b", "sft"), evaluation("a", 0.2), evaluation("b", 0.2))
    with pytest.raises(InputError, match="other models than seed 3: b; finish"):
        markdown_of_runs([one, two])
    (tmp_path / "2" / "recipe.toml").write_text('name = "q"\n')
    with pytest.raises(InputError, match="runs of two recipes, 'r' and 'q'"):
        markdown_of_runs([one, results_of(read_run(tmp_path / "2"))])


def test_json_holds_every_figure_of_every_set(twelve: Results) -> None:
    data = json.loads(json.dumps(as_json(twelve), allow_nan=False))
    assert [(each["name"], each["problems"]) for each in data["sets"]] == list(SETS.items())
    assert [each["leading"] for each in data["sets"]] == ["greedy"] * 4 + ["win_rate", "greedy"]
    student = next(model for model in data["models"] if model["name"] == "student-rl")
    assert student["compared_with"] == "student"
    assert student["parameters"] == 494_032_768
    assert set(student["sets"]) == set(SETS)
    assert 0 < student["sets"]["gsm8k"]["pass@1"] < student["sets"]["gsm8k"]["greedy"] < 1
    assert student["mean"]["greedy"]["complete"] is True
    assert student["mean"]["greedy"]["change"] > 0
