"""Dotted keys, as they are written in an override: `learner.lr`, `data.sources."my set.v2".limit`."""

import json
import re
from collections.abc import Mapping
from typing import Any

PLAIN_NAME = re.compile(r"[\w-]+")
"""A name that stands in a key without quotes."""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys, written as an override takes them."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        key = prefix + (name if PLAIN_NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False))
        if isinstance(value, Mapping):
            result.update(flat(value, f"{key}."))
        else:
            result[key] = value
    return result
