"""Columns of a row by their names; a dotted name goes into a column that holds objects (`reward_model.ground_truth`)."""

from collections.abc import Iterator, Mapping
from typing import Any

from rollout.data.json_text import read_json
from rollout.errors import InputError, did_you_mean

DEEPEST = 4
"""Levels of nested columns that a message names."""
MOST_NAMED = 40


def column_value(where: str, values: Mapping[str, Any], column: str, setting: str) -> Any:
    """The value of a column; `setting` is the key that named it. A column whose own name has dots comes first.

    Raises:
        InputError: there is no such column; the message names those that there are.
    """
    for value in found_values(values, column):
        return value
    names = list(_names(values, DEEPEST))
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    drop = ', or set answer_column="" if there is none' if setting == "answer_column" else ""
    raise InputError(
        f"{where}: no column {column!r}{did_you_mean(column, names)}\n"
        f"columns: {', '.join(names[:MOST_NAMED])}{more}; choose one with `{setting}`{drop}"
    )


def found_values(values: Mapping[str, Any], name: str) -> Iterator[Any]:
    """What a name may mean, the longest first part before shorter ones."""
    if name in values:
        yield values[name]
    place = name.rfind(".")
    while place > 0:
        inside = _object(values.get(name[:place]))
        if inside is not None:
            yield from found_values(inside, name[place + 1 :])
        place = name.rfind(".", 0, place)


def _object(value: Any) -> Mapping[str, Any] | None:
    """An object, or JSON text of one, as some tables hold it."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = read_json(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, Mapping) else None


def _names(values: Mapping[str, Any], depth: int) -> Iterator[str]:
    """Columns; in place of one that holds an object those inside."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value and depth:
            yield from (f"{name}.{inner}" for inner in _names(value, depth - 1))
        else:
            yield str(name)
