"""The tests of LiveCodeBench as it is published: public ones as JSON, private ones packed.

Packed is the pickle of a JSON text, compressed and written in base64. A pickle can run anything when it is loaded, so none is:
its opcodes are read one by one, and only those of a single text are taken.
"""

import base64
import pickletools
import zlib

from rollout.errors import InputError

LARGEST = 1 << 30
"""Bytes of the largest tests of one task, unpacked."""

_TEXT = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_NO_MATTER = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}


def unpacked(text: str, name: str) -> str:
    """JSON text of tests that may be packed. Raises InputError when they are neither packed nor JSON; `name`: of the column."""
    if text.lstrip()[:1] in ("[", "{"):
        return text
    try:
        unzip = zlib.decompressobj()
        pickled = unzip.decompress(base64.b64decode(text, validate=True), LARGEST)
        if not unzip.eof:
            raise ValueError(f"cut off, or more than {LARGEST >> 20} MiB")
        return _only_text(pickled)
    except (ValueError, zlib.error) as problem:
        raise InputError(f"{name}: neither JSON nor packed tests: {problem}") from None


def _only_text(pickled: bytes) -> str:
    found: list[str] = []
    for opcode, value, _ in pickletools.genops(pickled):
        if opcode.name in _TEXT:
            found.append(str(value))
        elif opcode.name not in _NO_MATTER:
            raise ValueError(f"a pickle of more than a text ({opcode.name})")
    if len(found) != 1:
        raise ValueError(f"a pickle of {len(found)} texts")
    return found[0]
