"""What the end of a run prints."""

from pathlib import Path

import pytest

from orchestrator.display import Display
from orchestrator.results.table import results_of
from orchestrator.results.terminal import SAMPLES_PRINTED, print_results
from orchestrator.run.record import read_run
from tests.orchestrator.pipeline_run import write_run


def test_the_end_of_a_run_prints_the_table_and_answers_of_the_first_and_the_last_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_results(results_of(read_run(write_run(tmp_path))), Display())
    printed = capsys.readouterr().out
    assert "r1: greedy accuracy by set" in printed
    assert "language %, truncated %: in table.md" in printed
    assert "† trained from small-student" in printed
    _, answers = printed.split("Answers to the same prompts, those first on which the models differ:")
    assert answers.count("First I add the units") == 2 * SAMPLES_PRINTED
    assert [line for line in answers.splitlines() if line in ("base", "preferred", "reasoning")] == [
        "base",
        "preferred",
    ]
