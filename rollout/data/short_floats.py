"""Floats of 16 and 32 bits in tables, as the shortest decimals that mean them: 0.1, and not 0.10000000149011612."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

Change = Callable[[Any], Any]


def shortening(kind: pa.DataType) -> Change | None:
    """What makes the short floats in a column's value read as they were written; None where the type holds none."""
    if pa.types.is_float32(kind):
        return _shortest(np.float32)
    if pa.types.is_float16(kind):
        return _shortest(np.float16)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return shortening(kind.value_type)
    if pa.types.is_struct(kind):
        fields = {kind.field(i).name: shortening(kind.field(i).type) for i in range(kind.num_fields)}
        changes = {name: change for name, change in fields.items() if change}
        return _if_any(changes, lambda value: value | {name: change(value[name]) for name, change in changes.items()})
    if pa.types.is_map(kind):
        key, item = (shortening(each) or _same for each in (kind.key_type, kind.item_type))
        return _if_any(
            key is not _same or item is not _same, lambda value: [(key(name), item(each)) for name, each in value]
        )
    inner = shortening(kind.value_type) if hasattr(kind, "value_type") else None
    return _if_any(inner, lambda value: [inner(each) for each in value] if inner else value)


def _shortest(number: type[np.floating[Any]]) -> Change:
    # The text of a short float is the shortest that means it.
    return lambda value: None if value is None else float(str(number(value)))


def _if_any(holds: object, change: Change) -> Change | None:
    return (lambda value: None if value is None else change(value)) if holds else None


def _same(value: Any) -> Any:
    return value
