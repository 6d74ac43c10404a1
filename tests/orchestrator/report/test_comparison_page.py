"""The page of a comparison and the charts of evaluations with intervals."""

from pathlib import Path

import pytest

from orchestrator.cli import run
from orchestrator.report.comparison import comparison_page, write_comparison
from orchestrator.report.page import write_report
from orchestrator.results.comparison import compare
from orchestrator.results.evaluated import read_evaluated
from tests.orchestrator.compared_runs import evaluation, invented, outcomes, write_run
from tests.orchestrator.report.test_page import HOSTILE, Page


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("runs")
    return [str(invented(folder / name, seed=1, lr=lr, gain=gain, problems=60, n=4)) for name, lr, gain in (("a", 1e-5, 0.5), ("b", 3e-5, 3.0))]  # fmt: skip


def test_the_page_says_what_is_better_and_shows_the_curves_of_both(runs: list[str], tmp_path: Path) -> None:
    path = write_comparison(compare([read_evaluated(each) for each in runs]), tmp_path / "deep" / "page.html")
    page = Page(path)
    assert "held-out: B is better than A" in page.text
    assert "learner.lr: 1e-05 → 3e-05" in page.text
    titles = page.chart_titles
    assert titles.count("Accuracy of samples, pass@1") == 2
    assert titles.count("Best of k, pass@k") == titles.count("Vote of k, cons@k") == 2
    lengths = page.charts("Length")[0]
    assert [line["n"] for line in lengths["s"]] == ["A", "B"]
    assert lengths["x"] == [0, 10, 20, 30, 40]
    assert page.charts("Best of k, pass@k")[0]["x"] == [1, 2, 3, 4]
    assert 'class="band s0"' in page.source


def test_names_are_harmless(tmp_path: Path) -> None:
    kept = outcomes([1, 2, 3])
    for place, lr in enumerate((1e-5, 3e-5)):
        write_run(tmp_path / str(place), [evaluation("rl", 1, kept, name=HOSTILE)], lr=lr, name=HOSTILE)
    page = comparison_page(compare([read_evaluated(str(tmp_path / name)) for name in "01"]))
    assert "<img" not in page
    assert "&lt;img" in page


def test_the_report_of_a_run_has_intervals(runs: list[str]) -> None:
    page = Page(write_report(Path(runs[0])))
    (accuracy, *_) = [chart for chart in page.charts("Accuracy") if len(chart["s"]) == 3]
    assert [line["n"] for line in accuracy["s"]] == ["greedy", "pass@1", "cons@4"]
    ks = page.charts("Vote and best of k")[0]
    assert [line["n"] for line in ks["s"]] == ["cons@k, step 0", "cons@k, step 40", "pass@k, step 0", "pass@k, step 40"]


def test_the_command_prints_the_table_and_writes_the_page(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["compare", *runs, "--set", "held-out"]) == 0
    out = capsys.readouterr().out
    assert "A  a (seed 1): " in out
    assert "B better" in out
    assert "held-out: B is better than A" in out
    assert (tmp_path / "compare.html").is_file()
    assert run(["compare", runs[0], "nowhere"]) == 2
    assert "nowhere: no run" in capsys.readouterr().err
