"""The text of a file, whatever it is compressed with: by lines and by pieces."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from rollout.errors import InputError

PIECE = 1 << 20
"""Bytes that are read at a time."""


# Closed by `open_bytes`.
def _gzip(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb"))


def _bzip2(path: Path) -> IO[bytes]:
    return bz2.open(path, "rb")


def _xz(path: Path) -> IO[bytes]:
    return lzma.open(path, "rb")


def _zstd(path: Path) -> IO[bytes]:
    return io.BufferedReader(pa.input_stream(str(path), compression="zstd"), PIECE)


CODECS: Mapping[str, Callable[[Path], IO[bytes]]] = {
    ".gz": _gzip,
    ".zst": _zstd,
    ".bz2": _bzip2,
    ".xz": _xz,
}
"""Last suffix of a compressed file → how it is opened."""

_SIGNS = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"BZh91AY": ".bz2", b"\xfd7zXZ\x00": ".xz"}
"""First bytes of a compressed file → its suffix."""


def plain_suffix(path: Path) -> str:
    """The suffix that says what a file holds, in lower case: `.jsonl` of `a.jsonl` and of `a.jsonl.gz`."""
    return (Path(path.stem) if path.suffix.lower() in CODECS else path).suffix.lower()


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, without its compression.

    Raises:
        InputError: it cannot be read, here or while it is read: missing, damaged, cut off, or not compressed as its name says.
    """
    try:
        with CODECS.get(path.suffix.lower(), lambda plain: plain.open("rb"))(path) as file:
            yield file
    except (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise InputError(f"{path}: cannot be read: {reason}{_other_compression(path)}") from None


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text with its line end). Split on newlines alone: JSON text may hold U+2028.

    Raises:
        InputError: as `open_bytes`, or a line is not UTF-8.
    """
    with open_bytes(path) as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                yield number, raw.decode("utf-8")
            except UnicodeDecodeError:
                raise _not_text(path, number) from None


def pieces(path: Path) -> Iterator[str]:
    """The text of a file, some of it at a time. Raises InputError as `lines` does."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    number = 1
    with open_bytes(path) as file:
        while True:
            raw = file.read(PIECE)
            try:
                text = decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                raise _not_text(path, number + error.object[: error.start].count(b"\n")) from None
            if not raw:
                return
            number += text.count("\n")
            yield text


def _not_text(path: Path, number: int) -> InputError:
    return InputError(f"{path}:{number}: not UTF-8 text{_other_compression(path) or '; convert the file to UTF-8'}")


def _other_compression(path: Path) -> str:
    """The way out where a file is compressed otherwise than its name says; else nothing."""
    try:
        with path.open("rb") as file:
            begin = file.read(8)
    except OSError:
        return ""
    held = next((suffix for sign, suffix in _SIGNS.items() if begin.startswith(sign)), "")
    named = path.suffix.lower() if path.suffix.lower() in CODECS else ""
    if held == named:
        return ""
    return (
        f"; it is compressed: rename it to end in {held}"
        if held
        else f"; it is not compressed: rename it without {named}"
    )
