"""`rayzero convert`: settings of another trainer as a recipe."""

import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollout.errors import InputError, visible

if TYPE_CHECKING:
    from orchestrator.config.recipe import Recipe

_STANDARD_INPUT = "standard input"
_HERE = "."


def convert(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="YAML of TRL or verl, or a script with a command of verl, OpenRLHF or TRL; - for standard input.",
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="RECIPE", help="Where the recipe goes. [default: standard output]")
    ] = "",
    rows: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Rows of the training data, for epochs; 0: counted where the data is here."
        ),
    ] = 0,
    processes: Annotated[
        int, typer.Option(min=0, metavar="N", help="GPUs that train (accelerate's num_processes); 0: as FILE says.")
    ] = 0,
    trl_version: Annotated[
        str,
        typer.Option(
            metavar="VERSION", help="Version of TRL whose defaults hold, such as 0.17. [default: the newest known]"
        ),
    ] = "",
) -> None:
    """Write a recipe from the settings of a TRL, verl or OpenRLHF run; start nothing.

    Batch size, group size and number of optimizer steps are those of FILE, defaults of its trainer are written out, and
    there is a comment for every setting that has no counterpart here or another meaning. Nothing of FILE is run.
    """
    from orchestrator.convert.forms import convert_text
    from orchestrator.run.files import check_writable

    name, text = _read(file)
    if out:
        check_writable("--out", Path(out))
        if Path(out).resolve() == Path(file).resolve():
            raise InputError(f"--out {out}: is FILE itself; name another")
    draft = convert_text(name, text, version=_version(trl_version), rows=rows, processes=processes)
    shown = Path(name).name if file != "-" else name
    recipe_text = draft.toml(
        f"Made by `rayzero convert` from {shown} ({draft.trainer}). Behind a key: the setting that it comes from."
    )
    recipe = _checked(name, recipe_text)
    if out:
        try:
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            Path(out).write_text(recipe_text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out {out}: cannot be written: {error.strerror}") from None
    else:
        typer.echo(recipe_text, nl=False)
    for line in _summary(draft.trainer, shown, recipe, draft.remains, out):
        typer.echo(visible(line), err=True)


def _read(file: str) -> tuple[str, str]:
    """(name for messages, text)."""
    from orchestrator.convert.beside import text_of

    if file != "-":
        return file, text_of(Path(file))
    try:
        return _STANDARD_INPUT, sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{_STANDARD_INPUT}: not text in UTF-8") from None


def _version(text: str) -> tuple[int, ...] | None:
    parts = text.removeprefix("v").split(".")[:2]
    if not text:
        return None
    if not all(part.isdigit() for part in parts) or tuple(map(int, parts)) < (0, 14):
        raise InputError(f"--trl-version {text}: give a version from 0.14 on, such as 0.17")
    return tuple(map(int, parts))


def _checked(name: str, text: str) -> "Recipe":
    """The recipe, as a run would read it; paths that are left to the user count as given."""
    from orchestrator.config.load import parse_recipe

    raw = tomllib.loads(text)
    raw["model"]["path"] = raw["model"]["path"] or _HERE
    for table in (raw["data"]["sources"], raw.get("eval", {}).get("sets", {})):
        for source in table.values():
            source["path"] = source["path"] or _HERE
    try:
        return parse_recipe(raw)
    except InputError as error:
        raise InputError(f"{name}: the recipe that it makes is refused: {error}") from None


def _summary(trainer: str, file: str, recipe: "Recipe", remains: list[str], out: str) -> Iterator[str]:
    from orchestrator.plan.batches import batch_plan

    yield f"{file}: {trainer}" + (f", written to {out}" if out else "")
    yield f"learns  {batch_plan(recipe.stages[0])}"
    left = [*remains, *_missing(recipe)]
    if left:
        yield "left to you:"
        yield from (f"  {line}" for line in left)
    yield f"rayzero check {out or 'RECIPE'} tells the rest"


def _missing(recipe: "Recipe") -> Iterator[str]:
    """What the recipe names and this machine does not have, by the checks that run nothing of the user's."""
    from orchestrator.checks.loss import check_loss
    from orchestrator.checks.model import check_model
    from orchestrator.convert.beside import is_there

    (stage,) = recipe.stages
    if stage.model.path != _HERE:
        try:
            yield from check_model(recipe, stage)
        except InputError as error:
            yield str(error).replace("\n", "; ")
        except OSError as error:
            yield f"model.path: {error.strerror}"
    yield from check_loss(recipe, stage)
    tables: Mapping[str, Mapping[str, Any]] = {"data.sources": stage.data.sources, "eval.sets": stage.eval.sets}
    for table, sources in tables.items():
        for name, source in sources.items():
            if source.path != _HERE and not source.path.startswith("hub:") and not is_there(source.path):
                yield f"{table}.{name}.path: {source.path} is not on this machine"
    for functions in stage.rewards.rubrics.values():
        for label, function in functions.items():
            file = function.name.rpartition(":")[0]
            if file.endswith(".py") and not is_there(file):
                yield f"rewards.rubrics.default.{label}.name: {file} is not here; it is looked for where rayzero is started"
