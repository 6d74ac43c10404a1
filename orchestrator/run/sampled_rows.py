"""The samples of rejection sampling as Parquet files: all of them as they come, and the rows of them that a stage leaves."""

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.data.selection import SampledRow
from orchestrator.run.files import begin_folder, complete, replaced_file, write_file
from rollout.errors import InputError

SAMPLE = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("source", pa.string()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("completion", pa.string()),
        ("thought_removed", pa.string()),
        ("num_tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("right", pa.bool_()),
        ("reward", pa.float64()),
        ("reward_parts", pa.map_(pa.string(), pa.float64())),
        ("flags", pa.list_(pa.string())),
        ("model", pa.string()),
        ("seed", pa.int64()),
    ]
)


def read_samples(folder: Path) -> list[SampledRow]:
    """All samples so far, in the order in which they were written."""
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]


def remember_prompts(folder: Path, now: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """(digests of the prompts that the samples in a folder were made of, those of `now`), by source. Without samples, or where
    it is not written down, `now` is kept as what they were made of."""
    file, samples = folder / "prompts.json", any(folder.glob("part-*.parquet"))
    if samples and file.is_file():
        return json.loads(file.read_text("utf-8")), dict(now)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(now, indent=1).encode())
    return dict(now), dict(now)


def write_part(folder: Path, rows: list[SampledRow]) -> None:
    """Write one more file of samples, whole or absent."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"part-{len(list(folder.glob('part-*.parquet'))):06d}.parquet"
    with replaced_file(path) as aside:
        pq.write_table(pa.Table.from_pylist(rows, SAMPLE), aside)


def write_rows(folder: Path, rows: list[SampledRow]) -> None:
    """Write the rows that the stage leaves. Raises InputError when none is left."""
    if not rows:
        name = folder.parent.name
        raise InputError(
            f"{name}: not one sample is kept; see the yields above, and ask a better model, or keep more of these samples:\n"
            f"rayzero train {folder.parents[1]} stages.{name}.reject.keep=best   (or .filters, .near_duplicate)"
        )
    pq.write_table(pa.Table.from_pylist(rows, SAMPLE), begin_folder(folder) / "rows.parquet")
    complete(folder)
