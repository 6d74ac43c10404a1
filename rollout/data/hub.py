"""Data sets of the Hugging Face hub, read by `datasets`: `path = "hub:openai/gsm8k"`.

`datasets` keeps what it has downloaded, and reads it without a network (`HF_HUB_OFFLINE=1`). It also reads a folder of files as
the hub holds them: `hub:/data/gsm8k`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from rollout.data.readers import MOST_ROWS, Record, rows_at_once, table_records
from rollout.data.rows import HUB, Source
from rollout.errors import InputError


def hub_records(source: Source) -> Iterator[Record]:
    """(where it stands, column → value) of every row of a split.

    Raises:
        InputError: `datasets` is not installed, or it finds no such data set, subset, split or revision.
    """
    held = _load(source)

    def batches(_: Path) -> Iterator[pa.RecordBatch]:
        for table in held.with_format("arrow").iter(batch_size=MOST_ROWS):
            for batch in table.to_batches():
                size = rows_at_once(batch.num_rows, batch.nbytes)
                yield from (batch.slice(start, size) for start in range(0, batch.num_rows, size))

    return table_records(Path(source.path), "a data set of the hub", batches)


def _load(source: Source) -> Any:
    named = f"source {source.name!r}: path = {source.path!r}"
    try:
        # An extra: most runs read files.
        import datasets
    except ImportError as error:
        raise InputError(
            f'{named}: {error}\ninstall the extra: pip install "rayzero[hub]", or download the files and name them by their path'
        ) from None
    name = source.path.removeprefix(HUB)
    if not name:
        raise InputError(f"{named}: needs the id of a data set behind it, such as hub:openai/gsm8k")
    folder = Path(name).expanduser()
    try:
        builder = datasets.load_dataset_builder(
            str(folder) if folder.is_dir() else name, source.subset or None, revision=source.revision or None
        )
        _check_revision(builder, source, named)
        builder.download_and_prepare()
        return builder.as_dataset(split=source.split)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - its own kinds, those of the hub's client, of fsspec and of the readers
        words = " ".join(str(error).split()) or type(error).__name__
        kept = words if len(words) <= 400 else f"{words[:397]}..."
        way_out = (
            "it is not in the cache of `datasets` here (HF_HOME); load it once where the hub is reached, or name its files by their path"
            if isinstance(error, ConnectionError)
            else "say which with `subset`, `split` and `revision`"
        )
        raise InputError(f"{named}, split = {source.split!r}: {kept}\n{way_out}") from None


def _check_revision(builder: Any, source: Source, named: str) -> None:
    """Raises InputError where the rows would be of another revision: without the hub `datasets` takes the newest of its cache,
    whatever it is asked for. What it keeps is called by its commit."""
    cached = type(builder).__module__.endswith(".cache.cache")
    # `main` is the newest too.
    if source.revision not in ("", "main") and cached and not str(builder.hash).startswith(source.revision):
        raise InputError(
            f"{named}: the hub cannot be reached, and the cache holds the commit {builder.hash}, which is not known to be revision "
            f"{source.revision!r}\nset revision to that commit if it is meant, or load the other where the hub is reached"
        )
