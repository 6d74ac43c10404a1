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
    folder = Path(name).expanduser()
    try:
        return datasets.load_dataset(
            str(folder) if folder.is_dir() else name,
            source.subset or None,
            split=source.split,
            revision=source.revision or None,
        )
    except Exception as error:  # noqa: BLE001 - its own kinds, those of the hub's client, of fsspec and of the readers
        words = " ".join(str(error).split()) or type(error).__name__
        kept = words if len(words) <= 400 else f"{words[:397]}..."
        raise InputError(
            f"{named}, split = {source.split!r}: {kept}\nsay which with `subset`, `split` and `revision`"
        ) from None
