"""The file that W&B writes in offline mode, read: a log in blocks of 32 KiB as LevelDB's, each record a message of protobuf."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, FILE_HEADER, RECORD_HEADER = 32768, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def messages(file: Path) -> Iterator[bytes]:
    data = file.read_bytes()
    assert data.startswith(b":W&B")
    at, parts = FILE_HEADER, b""
    while at + RECORD_HEADER <= len(data):
        if BLOCK - at % BLOCK < RECORD_HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        at += RECORD_HEADER
        part, at = data[at : at + size], at + size
        parts = part if kind in (FULL, FIRST) else parts + part
        if kind in (FULL, LAST):
            yield parts


def records(file: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    for message in messages(file):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(message)
        yield record


def history(file: Path) -> list[dict[str, Any]]:
    """Key → value of every row that was logged."""
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records(file)
        if record.WhichOneof("record_type") == "history"
    ]


def offline_files(run_dir: Path) -> list[Path]:
    """The files of the starts of a run, the oldest first."""
    return sorted((run_dir / "wandb").glob("offline-run-*/run-*.wandb"))
