"""Data sets of the hub, through `datasets`; here from a folder as the hub holds them."""

import gzip
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.sections.data import SourceSection
from rollout.data.rows import Source
from rollout.data.sources import load_rows
from rollout.errors import InputError


def rows_of(path: str, **settings: Any) -> list[tuple[str, str]]:
    return [(row.question, row.answer) for row in load_rows(Source(name="s", path=path, **settings), 0)]


def folder(tmp_path: Path) -> str:
    for split in ("train", "test"):
        (tmp_path / "set" / "data").mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps({"prompt": f"{split} {i}", "answer": i}) + "\n" for i in range(3))
        (tmp_path / "set" / "data" / f"{split}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return f"hub:{tmp_path / 'set'}"


def test_a_folder_as_the_hub_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = folder(tmp_path)
    assert rows_of(path) == [(f"train {i}", str(i)) for i in range(3)]
    assert rows_of(path, split="test", limit=2) == [("test 0", "0"), ("test 1", "1")]
    with pytest.raises(InputError, match=r"split = 'dev': .*dev.*\nsay which with"):
        rows_of(path, split="dev")


def test_what_is_named_is_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*args: Any, **kwargs: Any) -> Any:
        asked.append((args, kwargs))
        raise ConnectionError("no network\nhere")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(InputError, match=r"path = 'hub:openai/gsm8k', split = 'test': no network here\n"):
        rows_of("hub:openai/gsm8k", split="test", subset="main", revision="abc")
    assert asked == [(("openai/gsm8k", "main"), {"split": "test", "revision": "abc"})]


def test_without_datasets_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"path = 'hub:openai/gsm8k': .*\ninstall the extra: pip install .*\[hub\]"):
        rows_of("hub:openai/gsm8k")


@pytest.mark.parametrize("key", ["subset", "revision"])
def test_keys_of_the_hub_beside_a_file(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} = 'x' is of a data set of the hub"):
        SourceSection.model_validate({"path": "a.jsonl", key: "x"})
    SourceSection.model_validate({"path": "hub:a/b", key: "x"})
