"""The peak is the best of all that was seen on a machine, so that utilisation is at most 1."""

import json
from pathlib import Path

import pytest
import torch

from learner import peak
from learner.peak import Peak

CPU, F32 = torch.device("cpu"), torch.float32


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "peaks.json"


def measured(monkeypatch: pytest.MonkeyPatch, file: Path, rate: float, dtype: torch.dtype = F32) -> Peak:
    """The peak of a new process that measures `rate`."""
    monkeypatch.setattr(peak, "measure", lambda device, dtype: rate)
    return Peak(CPU, dtype, file)


def test_a_process_on_a_busy_machine_takes_the_best_of_those_before(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    assert measured(monkeypatch, file, 40e9).flops == 40e9
    assert measured(monkeypatch, file, 100e9).flops == 100e9
    assert measured(monkeypatch, file, 3e9).flops == 100e9
    assert measured(monkeypatch, file, 60e9, torch.bfloat16).flops == 60e9, "of another dtype"
    assert [path.name for path in file.parent.iterdir()] == ["peaks.json"]


def test_other_threads_are_another_device(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    measured(monkeypatch, file, 100e9)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert measured(monkeypatch, file, 40e9).flops == 40e9


def test_another_machine_of_the_same_home_has_its_own(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    measured(monkeypatch, file, 100e9)
    monkeypatch.setattr(peak.platform, "node", lambda: "another")
    assert measured(monkeypatch, file, 40e9).flops == 40e9


def test_a_step_that_did_more_is_the_better_measurement(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    now = measured(monkeypatch, file, 10e9)
    assert now.raise_to(8e9) == 10e9
    assert now.raise_to(12e9) == 12e9
    assert now.raise_to(float("inf")) == 12e9
    assert measured(monkeypatch, file, 1e9).flops == 12e9


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": "x"}', '{"a": null}', '{"a": Infinity}', "7"])
def test_a_file_that_is_none_is_written_anew(monkeypatch: pytest.MonkeyPatch, file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    assert measured(monkeypatch, file, 5e9).flops == 5e9
    assert list(json.loads(file.read_text()).values()) == [5e9]


def test_without_a_place_for_the_file_a_process_knows_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert measured(monkeypatch, tmp_path / "file" / "peaks.json", 5e9).flops == 5e9


@pytest.mark.parametrize(("alone_at", "products"), [(3, 6), (9, 9)])
def test_it_looks_for_a_moment_in_which_the_cores_are_its_own(
    monkeypatch: pytest.MonkeyPatch, alone_at: int, products: int
) -> None:
    done = 0

    def product(*_: object) -> tuple[float, float]:
        nonlocal done
        done += 1
        return (0.5, 1.0) if done == alone_at else (1.0, 0.6)

    monkeypatch.setattr(peak, "SIZES", {"cpu": (10,)})
    monkeypatch.setattr(peak, "_product", product)
    assert peak.measure(CPU, F32) == 2 * 10**3 / 0.5
    assert done == products


def test_it_does_not_look_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "SIZES", {"cpu": (10,)})
    monkeypatch.setattr(peak, "PATIENCE_S", 0.05)
    monkeypatch.setattr(peak, "_product", lambda *_: (1.0, 0.6))
    assert peak.measure(CPU, F32) == 2 * 10**3


def test_a_real_product_draws_nothing_that_a_model_would_draw(file: Path) -> None:
    state = torch.get_rng_state()
    assert Peak(CPU, F32, file).flops > 1e8
    assert torch.equal(torch.get_rng_state(), state)
