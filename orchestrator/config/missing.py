"""Models and data that a recipe leaves to the user: their path is there and empty. Told all at once, by key.

Works on the tables of a recipe before they are validated; what is no table is left to validation.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.config.recipe import OWN
from rollout.errors import InputError

FILE = "a JSONL, JSON, Parquet, CSV or Arrow file"


def check_required(written: Sequence[Mapping[str, Any]], stages: Sequence[Mapping[str, Any]]) -> None:
    """Raises InputError when a path is empty: the first with what to give, then the keys of the others.

    Args:
        written: the stages as the recipe has them.
        stages: the same with the defaults under them.
    """
    missing = dict([*_models(written, stages), *_sources(stages)])
    if not missing:
        return
    (key, what), *others = missing.items()
    more = f"\nand so {'is' if len(others) == 1 else 'are'} {', '.join(key for key, _ in others)}" if others else ""
    raise InputError(f"{key} is empty: give {what} ({key}=…){more}")


def _models(written: Sequence[Mapping[str, Any]], stages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(key, what to give) of the models that stages begin with."""
    for place, (own, stage) in enumerate(zip(written, stages, strict=True)):
        if place and stage.get("model_from") != OWN:
            continue
        model = _table(stage, "model")
        if "path" not in model or model["path"] or _table(model, "build").get("tokenizer"):
            continue
        key = f"stages.{stage.get('name')}.model.path" if place and "path" in _table(own, "model") else "model.path"
        yield key, "a Hugging Face model folder or hub id"


def _sources(stages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(key, what to give) of data sources and evaluation sets with a path that is empty."""
    for stage in stages:
        for section, part in (("data", "sources"), ("eval", "sets")):
            for name, source in _table(_table(stage, section), part).items():
                origins = ("path", "task", "stage")
                if isinstance(source, Mapping) and "path" in source and not any(source.get(key) for key in origins):
                    yield f"{section}.{part}.{name}.path", _rows_of(source)


def _rows_of(source: Mapping[str, Any]) -> str:
    if source.get("set"):
        return f"the file of {source['set']} as it is published"
    if source.get("messages_column"):
        return f"{FILE} with conversations in column {source['messages_column']!r}"
    names = ["prompt", *(["chosen", "rejected"] if source.get("chosen_column") else ["completion", "answer"])]
    columns = [source.get(f"{name}_column", name if name in ("prompt", "answer") else "") for name in names]
    return f"{FILE} with columns {', '.join(repr(column) for column in columns if column)}"


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}
