"""The file of a step, which is the commit: what batch `step` is made of and everything that decides the step, on the disk before
the learner sees it. Weights are derived from these files; they can be trained again from them (orchestrator/loop/restore.py).

    RUN/trajectories/STAGE/step-000012.parquet      one row a completion (TRAJECTORY), and in its metadata a StepRecord as JSON

A file is whole or absent, its pages and its record have checksums, and what cannot be read is left aside, never deleted.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.run.files import replaced_file
from orchestrator.run.trajectories import TRAJECTORY
from rollout.errors import ServiceError

RECORD, DIGEST = b"rayzero", b"rayzero.digest"
PACKAGES = ("torch", "deepspeed", "numpy", "transformers")


class DamagedFile(ServiceError):
    """A file of the run is not what was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What decides a step beside its rows. Plain values, as JSON has them."""

    step: int
    """Number of the batch, from 1: the policy version that it makes."""
    numbers: Sequence[int]
    """Numbers of its groups, in the order of the batch."""
    dropped: Sequence[tuple[int, str]]
    """(number, reason) of the groups that were dropped since the file before."""
    state: Mapping[str, Any]
    """Buffer and prompts as the batch left them (`Buffer.state`, `PromptSource.state`)."""
    cut: Mapping[str, Any]
    """Arguments of `make_batch` beside the rows."""
    learner: Mapping[str, Any]
    """The recipe's section, with what it left open filled in: `threads`, `device`, `dtype`."""
    plan: tuple[int, int]
    """(optimizer steps, those of the warm-up) that the learning rate goes by."""
    packages: Mapping[str, str]
    """Versions of what computes."""


def installed() -> dict[str, str]:
    """Versions of the packages that decide what a step computes."""
    return {package: version(package) for package in PACKAGES}


def write_step(
    path: Path, record: StepRecord, groups: Sequence[pa.RecordBatch], advantages: Sequence[np.ndarray], trained_at: int
) -> None:
    """Write the file of a step; it is on the disk when this returns.

    Args:
        groups: rows of each group (`group_batch`).
        advantages: [G'] of each group.
        trained_at: policy version of the learner that takes the batch.
    """
    rows = pa.Table.from_batches(groups).combine_chunks()
    count = rows.num_rows
    versions = rows["policy_versions"].chunk(0)
    oldest = np.minimum.reduceat(versions.flatten().to_numpy(), versions.offsets.to_numpy()[:-1])
    own = {
        "step": pa.array(np.full(count, record.step, np.int32)),
        "advantage": pa.array(np.concatenate(advantages).astype(np.float64)),
        "staleness": pa.array((trained_at - oldest).astype(np.int32)),
    }
    text = json.dumps(asdict(record)).encode()
    table = pa.table(
        [own[name] if name in own else rows[name] for name in TRAJECTORY.names],
        schema=TRAJECTORY.with_metadata({RECORD: text, DIGEST: _digest(text)}),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as aside:
        # Tokens repeat too little for a dictionary, and nobody looks for a row by its least value.
        texts = [known.name for known in TRAJECTORY if known.type == pa.string()]
        pq.write_table(table, aside, use_dictionary=texts, write_statistics=False, write_page_checksum=True)


def read_record(path: Path) -> StepRecord | None:
    """The record of a step's file; None: it was written by a version that kept none.

    Raises:
        DamagedFile: it cannot be read.
    """
    try:
        with pq.ParquetFile(path) as file:
            return _record(path, file.schema_arrow)
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise _damaged(path, problem) from None


def read_rows(path: Path) -> pa.Table:
    """[S] rows of a step's file, every page compared with its checksum.

    Raises:
        DamagedFile: it cannot be read, or a page is not what was written.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            rows = file.read()
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise _damaged(path, problem) from None
    if rows.schema.remove_metadata() != TRAJECTORY:
        raise DamagedFile(f"{path}: its columns are not those that were written")
    return rows


def _record(path: Path, schema: pa.Schema) -> StepRecord | None:
    metadata = schema.metadata or {}
    if RECORD not in metadata:
        if schema.remove_metadata() == TRAJECTORY:
            raise DamagedFile(f"{path}: its record is gone")
        return None
    if _digest(metadata[RECORD]) != metadata.get(DIGEST):
        raise DamagedFile(f"{path}: its record is not what was written")
    values = json.loads(metadata[RECORD])
    values["dropped"] = [(number, reason) for number, reason in values["dropped"]]
    values["plan"] = tuple(values["plan"])
    return StepRecord(**values)


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).hexdigest().encode()


def _damaged(path: Path, problem: Exception) -> DamagedFile:
    reason = (str(problem).splitlines() or [type(problem).__name__])[0]
    return DamagedFile(f"{path} cannot be read: {reason}")
