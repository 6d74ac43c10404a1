"""The samples of rejection sampling as Parquet files: all of them as they come, and the rows of them that a stage leaves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.data.selection import SampledRow
from orchestrator.run.files import begin_folder, complete, replaced_file, write_file
from rollout.data.json_text import json_text
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


def _table(rows: list[SampledRow]) -> pa.Table:
    """The rows as a table; once one was asked as messages, all are, with the `tools` of each as JSON text."""
    if all(isinstance(row["prompt"], str) for row in rows):
        return pa.Table.from_pylist(rows, SAMPLE)
    asked = [
        [{"role": "user", "content": p}] if isinstance(p := row["prompt"], str) else list(map(_flat, p)) for row in rows
    ]
    table = pa.Table.from_pylist([{**row, "prompt": ""} for row in rows], SAMPLE)
    table = table.set_column(SAMPLE.get_field_index("prompt"), "prompt", pa.array(asked))
    return table.append_column("tools", pa.array([row.get("tools") or "" for row in rows], pa.string()))


def _flat(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message with the arguments of its calls as text: a column has one type, whatever a tool is called with."""
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        function = call.get("function", call)
        arguments = function.get("arguments") or {}
        flat = {**function, "arguments": arguments if isinstance(arguments, str) else json_text(arguments)}
        calls.append({**call, "function": flat} if "function" in call else flat)
    return {**message, "tool_calls": calls}


def write_part(folder: Path, rows: list[SampledRow]) -> None:
    """Write one more file of samples, whole or absent."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"part-{len(list(folder.glob('part-*.parquet'))):06d}.parquet"
    with replaced_file(path) as aside:
        pq.write_table(_table(rows), aside)


def write_rows(folder: Path, rows: list[SampledRow]) -> None:
    """Write the rows that the stage leaves. Raises InputError when none is left."""
    if not rows:
        name = folder.parent.name
        raise InputError(
            f"{name}: not one sample is kept; see the yields above, and ask a better model, or keep more of these samples:\n"
            f"rayzero train {folder.parents[1]} stages.{name}.reject.keep=best   (or .filters, .near_duplicate)"
        )
    pq.write_table(_table(rows), begin_folder(folder) / "rows.parquet")
    complete(folder)
