"""The samples of rejection sampling as Parquet files: all of them as they come, and the rows of them that a stage leaves."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.data.selection import SampledRow
from orchestrator.run.files import begin_folder, complete, replaced_file
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
