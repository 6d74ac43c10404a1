"""What is read of a run that may still be going on."""

from pathlib import Path

import pytest

from orchestrator.run_record import read_metrics
from rollout.errors import InputError


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"kind": "step"}\n{"kind": "st\xc3')
    assert read_metrics(tmp_path) == [{"kind": "step"}]


@pytest.mark.parametrize("bad", ['{"kind": "st', "17", "[1]"])
def test_a_bad_line_elsewhere_is_an_error_with_its_number(tmp_path: Path, bad: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"kind": "step"}}\n\n{bad}\n{{"kind": "step"}}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 3"):
        read_metrics(tmp_path)


def test_no_metrics_yet_is_no_records(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
