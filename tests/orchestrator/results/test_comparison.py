"""Runs beside each other: what is one side, what is compared, what is refused, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.results.comparison import Comparison, compare
from orchestrator.results.comparison_text import sentences, settings_told, tables
from orchestrator.results.evaluated import read_evaluated
from orchestrator.results.outcomes import consensus, coverage, values_of
from rollout.errors import InputError
from tests.factories import prompt
from tests.orchestrator.compared_runs import evaluation, invented, outcomes, write_run
from tests.orchestrator.evaluation.evaluated import evaluated
from tests.orchestrator.factories import recipe

WEAK, STRONG = [0, 1, 2, 3, 4, 0, 1, 2], [1, 2, 3, 4, 4, 1, 2, 3]


def single(
    folder: Path, right: list[int], *, seed: int = 1, lr: float = 1e-5, name: str = "held-out", **more: Any
) -> str:
    """A run with one evaluation."""
    kept = outcomes(right, **more)
    return str(write_run(folder, [evaluation("rl", 8, kept, name=name, label="after")], seed=seed, lr=lr))


def compared(*named: str, only: tuple[str, ...] = ()) -> Comparison:
    return compare([read_evaluated(each) for each in named], only)


def fault(*named: str, only: tuple[str, ...] = ()) -> str:
    with pytest.raises(InputError) as caught:
        compared(*named, only=only)
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


def row(found: Comparison, key: str, place: int = 0) -> Any:
    return next(each for each in found.sets[place].rows if each.figure.key == key)


def test_figures_are_those_of_the_records(tmp_path: Path) -> None:
    found = compared(single(tmp_path / "a", WEAK), single(tmp_path / "b", STRONG, lr=3e-5))
    assert [each.figure.key for each in found.sets[0].rows] == ["pass@1", "cons@4", "gain", "pass@4", "greedy"]
    assert [each.value for each in row(found, "pass@1").estimates] == pytest.approx([13 / 32, 20 / 32])
    assert [each.value for each in row(found, "pass@4").estimates] == pytest.approx([6 / 8, 1])
    (apart,) = row(found, "pass@1").differences
    assert apart.estimate.value == pytest.approx(7 / 32)
    assert (apart.more, apart.less, apart.test) == (7, 0, "bootstrap")
    (greedy,) = row(found, "greedy").differences
    assert (greedy.more, greedy.less, greedy.test) == (2, 0, "exact")
    assert greedy.p == pytest.approx(2 / 4)


def test_what_is_said_of_it(tmp_path: Path) -> None:
    found = compared(single(tmp_path / "a", WEAK * 6), single(tmp_path / "b", STRONG * 6, lr=3e-5))
    (said,) = sentences(found)
    assert said.startswith("held-out: B is better than A, almost certain: +21.9 points in pass@1 (95 %: +")
    assert list(settings_told(found)) == ["A → B: learner.lr: 1e-05 → 3e-05"]
    ((title, heads, lines),) = tables(found)
    assert (title, heads[-3:]) == ("held-out, 48 problems", ["B − A", "p", "verdict"])
    assert lines[0][0] == "pass@1 %"
    assert lines[0][-2:] == ["<0.001".replace("<", "< "), "B better"]
    (back,) = sentences(compared(str(tmp_path / "b"), str(tmp_path / "a")))
    assert back.startswith("held-out: B is worse than A, almost certain: −21.9 points")


def test_the_same_answers_are_no_difference(tmp_path: Path) -> None:
    (said,) = sentences(compared(single(tmp_path / "a", WEAK), single(tmp_path / "b", WEAK, lr=3e-5)))
    assert said == "held-out: no clear difference between A and B: ±0 points in pass@1 (95 %: ±0 to ±0; p = 1.000)"


def test_seeds_of_a_recipe_are_one_side(tmp_path: Path) -> None:
    a = [single(tmp_path / f"a{seed}", WEAK, seed=seed) for seed in (1, 2)]
    b = [single(tmp_path / f"b{seed}", STRONG, seed=seed, lr=3e-5) for seed in (1, 2)]
    found = compared(a[0], b[0], a[1], b[1])
    assert [(side.letter, [run.named for run in side.runs]) for side in found.sides] == [("A", a), ("B", b)]
    assert found.sides[0].words.endswith("(seeds 1, 2)")
    assert row(found, "greedy").differences[0].test == "bootstrap"
    assert not any("several seeds" in note for note in found.notes)
    assert any("several seeds" in note for note in compared(a[0], b[0]).notes)
    assert any("a seed twice" in note for note in compared(a[0], single(tmp_path / "c", WEAK), b[0]).notes)


def test_seeds_that_differ_make_it_less_sure(tmp_path: Path) -> None:
    alike = [single(tmp_path / f"s{seed}", STRONG * 4, seed=seed, lr=3e-5) for seed in (1, 2, 3)]
    apart = [
        single(tmp_path / f"d{seed}", right * 4, seed=seed, lr=5e-5)
        for seed, right in enumerate(([4] * 8, STRONG, WEAK), start=1)
    ]
    base = single(tmp_path / "a", WEAK * 4)
    widths = []
    for others in (alike, apart):
        found = row(compared(base, *others), "pass@1").differences[0].estimate
        widths.append(found.high - found.low)
    assert widths[1] > 1.5 * widths[0]


def test_a_run_before_and_after_are_two_sides(tmp_path: Path) -> None:
    records = [
        evaluation("rl", 0, outcomes(WEAK), label="before"),
        evaluation("rl", 4, outcomes(WEAK)),
        evaluation("rl", 8, outcomes(STRONG), label="after"),
    ]
    run = str(write_run(tmp_path / "run", records))
    found = compared(f"{run}@0", run)
    assert [side.name for side in found.sides] == ["sums/rl@0", "sums/rl"]
    assert row(found, "pass@1").differences[0].estimate.value == pytest.approx(7 / 32)
    assert [record["step"] for record in found.sides[1].runs[0].history] == [0, 4, 8]
    assert compared(f"{run}/rl").sides[0].runs[0].records == compared(run).sides[0].runs[0].records


def test_one_side_alone_has_intervals(tmp_path: Path) -> None:
    found = compared(single(tmp_path / "a", WEAK))
    assert list(sentences(found)) == []
    ((_, heads, lines),) = tables(found)
    assert heads == ["figure", "A (95 %)"]
    assert lines[0][1].startswith("40.6 (")


def test_a_file_of_rayzero_eval_is_compared_too(tmp_path: Path) -> None:
    record = evaluation("rl", 8, outcomes(STRONG))
    content = {
        "model": "org/model",
        "results": [{k: v for k, v in record.items() if k not in ("stage", "step", "label", "kind")}],
    }
    file = tmp_path / "eval.json"
    file.write_text(json.dumps(content))
    found = compared(single(tmp_path / "a", WEAK), str(file))
    assert [side.name for side in found.sides] == ["sums", str(file)]
    assert row(found, "pass@1").estimates[1].value == pytest.approx(20 / 32)


def test_sides_with_fewer_samples_are_compared_at_their_k(tmp_path: Path) -> None:
    found = compared(single(tmp_path / "a", [2, 1], n=2), single(tmp_path / "b", [8, 4], n=8, lr=3e-5))
    keys = [each.figure.key for each in found.sets[0].rows]
    assert keys == ["pass@1", "cons@2", "gain", "pass@2", "greedy"]
    # Of four right and four alike that are wrong, two are a tie in 16 pairs of 28, right in 6.
    assert row(found, "cons@2").estimates[1].value == pytest.approx((1 + (6 + 16 / 2) / 28) / 2)
    assert row(found, "pass@2").estimates[1].value == pytest.approx((1 + (1 - 6 / 28)) / 2)


def test_a_problem_counts_where_every_run_has_a_value(tmp_path: Path) -> None:
    a = single(tmp_path / "a", [4, 4, 0], reward=[1.0, None, 0.0])
    b = single(tmp_path / "b", [4, 4, 4], lr=3e-5, reward=[1.0, 1.0, 1.0])
    found = row(compared(a, b), "reward")
    assert found.problems == 2
    assert [each.value for each in found.estimates] == [0.5, 1.0]


def test_several_sets_and_their_mean(tmp_path: Path) -> None:
    runs = []
    for name, rights, lr in (("a", (WEAK, [0] * 20), 1e-5), ("b", (STRONG, [4] * 20), 3e-5)):
        records = [
            evaluation("rl", 8, outcomes(right, fingerprint=set_name), name=set_name, label="after")
            for set_name, right in zip(("easy", "hard"), rights, strict=True)
        ]
        runs.append(str(write_run(tmp_path / name, records, lr=lr)))
    found = compared(*runs)
    assert [each.name for each in found.sets] == ["easy", "hard", "mean over sets"]
    mean = row(found, "pass@1", place=2)
    assert mean.differences[0].estimate.value == pytest.approx((7 / 32 + 1) / 2)
    assert mean.differences[0].test == "bootstrap"
    assert [each.name for each in compared(*runs, only=("hard",)).sets] == ["hard"]
    assert "not a set of every run; did you mean 'hard'?" in fault(*runs, only=("hardd",))


def test_different_problems_are_refused(tmp_path: Path) -> None:
    a, b = single(tmp_path / "a", WEAK), single(tmp_path / "b", STRONG[:6], lr=3e-5, fingerprint="beef")
    assert fault(a, b).startswith(f"'held-out' holds different problems in {a} (8) and {b} (6)")


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    a = single(tmp_path / "a", WEAK)
    assert "is named twice" in fault(a, a)
    assert "no evaluation set in common" in fault(a, single(tmp_path / "b", WEAK, name="other"))
    assert "no run, and no file" in fault(a, str(tmp_path / "nothing"))
    assert "no stage 'sft'; the run has: rl" in fault(f"{a}/sft")
    assert "no evaluation at step '3'; stage rl was evaluated at 8" in fault(f"{a}@3")
    assert "nothing was evaluated yet" in fault(str(write_run(tmp_path / "new", [])))
    old = evaluation("rl", 8, outcomes(WEAK), label="after")
    del old["outcomes"]
    assert "is of an earlier version" in fault(a, str(write_run(tmp_path / "old", [old], lr=3e-5)))
    broken = tmp_path / "table.json"
    broken.write_text('{"models": []}')
    assert "no file of `rayzero eval`" in fault(str(broken))


def test_figures_of_a_problem(tmp_path: Path) -> None:
    kept = outcomes([2, 0, 4], n=4)
    kept["n"], kept["right"], kept["votes"], kept["majority"] = (
        [4, 3, 4],
        [2, 0, 4],
        [[2, 1], [0, 2, 1], [4]],
        [1, 0, 1],
    )
    record = evaluation("rl", 1, kept)
    assert coverage(record)[1].tolist() == pytest.approx([5 / 6, 0, 1])
    assert str(coverage(record)[3].tolist()) == "[1.0, nan, 1.0]"  # one of its four samples could not be scored
    # Two right, one wrong, one silent: of six pairs one is both right, two are a tie, three have one vote at most for each.
    assert consensus(record)[1].tolist() == pytest.approx([(1 + 2 / 2 + 2) / 6, 0, 1])
    found = values_of(record, "cons@4")
    assert found is not None
    assert found.tolist() == [1, 0, 1]
    assert values_of(record, "won") is None


def test_invented_runs_end_where_they_were_meant_to(tmp_path: Path) -> None:
    """Twice three seeds, one recipe with more gain: the difference is found."""
    runs = [str(invented(tmp_path / f"{lr}-{seed}", seed=seed, lr=lr, gain=gain, problems=120, n=8)) for lr, gain in ((1e-5, 1.0), (3e-5, 2.0)) for seed in (1, 2, 3)]  # fmt: skip
    found = compared(*runs)
    assert [len(side.runs) for side in found.sides] == [3, 3]
    assert row(found, "pass@1", place=2).differences[0].sure
    assert row(found, "pass@1", place=2).differences[0].estimate.value > 0


def test_two_sets_are_no_two_problems(tmp_path: Path) -> None:
    """All wrong against all right: sure, by the problems of the sets and not by the number of sets."""
    runs = []
    for name, right, lr in (("a", [0] * 20, 1e-5), ("b", [4] * 20, 3e-5)):
        records = [evaluation("rl", 8, outcomes(right), name=each, label="after") for each in ("one", "two")]
        runs.append(str(write_run(tmp_path / name, records, lr=lr)))
    (found,) = row(compared(*runs), "greedy", place=2).differences
    assert (found.test, found.sure) == ("bootstrap", True)


def test_what_an_evaluation_records_is_what_is_compared(tmp_path: Path) -> None:
    """Completions scored by the real rubric; the answer is 2."""
    stage = recipe(eval={"sets": {"set": {"path": "t.jsonl"}}, "samples": 4, "greedy": True}).stages[0]
    runs = []
    for name, answers, lr in (("a", ("3222", "3344", "3332"), 1e-5), ("b", ("2222", "2244", "3322"), 3e-5)):
        asked = [prompt(f"s/{place}") for place in range(3)]
        texts = {
            f"s/{place}": [f"<think>Wait, hm.</think><answer>{each}</answer>" for each in row]
            for place, row in enumerate(answers)
        }
        (result,) = evaluated(stage, {"set": asked}, texts)
        record = {
            "kind": "eval",
            "stage": "rl",
            "step": 4,
            "label": "after",
            "time": 1.0,
            **json.loads(json.dumps(result.record())),
        }
        runs.append(str(write_run(tmp_path / name, [record], lr=lr)))
    found = compared(*runs)
    shares = {each.figure.key: [one.value for one in each.estimates] for each in found.sets[0].rows}
    assert shares["pass@1"] == pytest.approx([(3 + 0 + 1) / 12, (4 + 2 + 2) / 12])
    assert shares["cons@4"] == pytest.approx([1 / 3, 2 / 3])  # of two against two the earliest
    assert shares["pass@4"] == pytest.approx([2 / 3, 1])
    assert shares["greedy"] == pytest.approx([0, 2 / 3])
    assert shares["reflections"] == [1, 1]
    assert shares["tokens"][0] == shares["tokens"][1] > 0
    record = read_evaluated(runs[0]).records["set"]
    assert (record["pass@1"], record["cons@k"]) == (
        pytest.approx(shares["pass@1"][0]),
        pytest.approx(shares["cons@4"][0]),
    )
