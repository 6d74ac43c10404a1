"""Data sets of the hub, through `datasets`; here from a folder as the hub holds them."""

import gzip
import json
import shutil
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


class Builder:
    """As one of `datasets`."""

    hash = "a1b2"

    def download_and_prepare(self) -> None:
        self.prepared = True

    def as_dataset(self, split: str) -> Any:
        raise ValueError(f"Unknown split {split!r}.\nOr prepared: {self.prepared}")


def test_what_is_named_is_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(*args: Any, **kwargs: Any) -> Builder:
        asked.append((args, kwargs))
        return Builder()

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset_builder=load))
    words = (
        r"path = 'hub:openai/gsm8k', split = 'test': Unknown split 'test'. Or prepared: True\nsay which with `subset`"
    )
    with pytest.raises(InputError, match=words):
        rows_of("hub:openai/gsm8k", split="test", subset="main", revision="abc")
    assert asked == [(("openai/gsm8k", "main"), {"revision": "abc"})]


def test_what_is_neither_on_the_hub_nor_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: Any, **kwargs: Any) -> Builder:
        raise ConnectionError("no network\nhere")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset_builder=load))
    with pytest.raises(
        InputError, match=r"split = 'train': no network here\nit is not in the cache of `datasets` here"
    ):
        rows_of("hub:openai/gsm8k")
    with pytest.raises(InputError, match=r"path = 'hub:': needs the id of a data set"):
        rows_of("hub:")


def cached_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit: str) -> None:
    """What `datasets` keeps of a data set of the hub, acme/sums, that it has loaded."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    made = datasets.load_dataset(folder(tmp_path).removeprefix("hub:"), cache_dir=str(tmp_path / "made"))
    here = Path(made["train"].cache_files[0]["filename"]).parent
    there = tmp_path / "cache" / "acme___sums" / "default" / "0.0.0" / commit
    there.mkdir(parents=True)
    for file in here.glob("*.arrow"):
        shutil.copy(file, there / file.name.replace("set-", "sums-"))
    info = json.loads((here / "dataset_info.json").read_text()) | {"dataset_name": "sums", "config_name": "default"}
    (there / "dataset_info.json").write_text(json.dumps(info))


def test_the_cache_serves_where_the_hub_is_not_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached_set(tmp_path, monkeypatch, "c" * 40)
    assert rows_of("hub:acme/sums", split="test[1:]") == [("test 1", "1"), ("test 2", "2")]
    for revision in ("c" * 40, "main"):
        assert rows_of("hub:acme/sums", split="test", revision=revision, limit=1) == [("test 0", "0")]
    for revision in ("d" * 40, "v1.0"):
        with pytest.raises(InputError, match=f"the cache holds the commit c{{40}}, which is not known .*{revision}"):
            rows_of("hub:acme/sums", split="test", revision=revision)


def test_without_datasets_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"path = 'hub:openai/gsm8k': .*\ninstall the extra: pip install .*\[hub\]"):
        rows_of("hub:openai/gsm8k")


@pytest.mark.parametrize("key", ["subset", "revision"])
def test_keys_of_the_hub_beside_a_file(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} = 'x' is of a data set of the hub"):
        SourceSection.model_validate({"path": "a.jsonl", key: "x"})
    SourceSection.model_validate({"path": "hub:a/b", key: "x"})
