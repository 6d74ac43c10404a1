"""Whether the reward functions that the rubrics name exist. Modules are parsed, not imported: importing runs them."""

import ast
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchestrator.checks.model import check_place
from orchestrator.checks.naming import key_in
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.trained_rewards import PREFIX, used_rubrics
from rollout.errors import InputError, did_you_mean


def check_rewards(recipe: Recipe, stage: Stage) -> None:
    """Raises InputError when a rubric is empty, names a function that is not there, or gives one what it does not take."""
    for rubric, functions in stage.rewards.rubrics.items():
        named = key_in(recipe, stage, f"rewards.rubrics.{rubric}")
        if not functions:
            raise InputError(f"{named} is empty; name a reward function and its weight, such as accuracy = 1.0")
        for function in functions.values():
            _check_reward(named, function.name)
        _check_arguments(named, stage, rubric)


def check_reward_models(recipe: Recipe, stage: Stage) -> list[str]:
    """Notes about the reward models that a stage scores with. Raises InputError when one is not there or not whole."""
    notes: list[str] = []
    for rubric in sorted(used_rubrics(stage) & stage.rewards.rubrics.keys()):
        for label, function in stage.rewards.rubrics[rubric].items():
            path = (function.model_extra or {}).get("path", "")
            if function.name == "reward_model" and not path.startswith(PREFIX):
                named = key_in(recipe, stage, f"rewards.rubrics.{rubric}.{label}.path")
                notes += check_place(f"{named} = {path!r}", path)
    return notes


def _check_arguments(named: str, stage: Stage, rubric: str) -> None:
    # Only here: the built-in rewards bring numpy.
    from orchestrator.config.rubrics import preferring_label, rubrics_of
    from rewards.resources import Resources, ResourceSettings
    from rewards.rubric import Rubric

    functions = rubrics_of(stage)[rubric]
    try:
        Rubric("check", functions, Resources(ResourceSettings()))
        for section in stage.eval.prompt_sets.values():
            if section.baseline_column and section.rubric == rubric:
                preferring_label(functions, section.judged_by)
    except InputError as error:
        raise InputError(f"{named}: {error}") from None


def check_sandbox(recipe: Recipe) -> list[str]:
    """Notes on what contains programs, where a rubric runs some; what is tried is this machine's sandbox.

    Raises:
        InputError: it does not hold, and the recipe does not say that it need not; or programs are to have a package that
            is not installed here, or that cannot be imported in it.
    """
    runs_code = [
        stage
        for stage in recipe.stages
        if any(
            function.name == "code_tests" for rubric in stage.rewards.rubrics.values() for function in rubric.values()
        )
    ]
    if not runs_code:
        return []
    # Only here: few recipes need it.
    import asyncio

    from rewards.sandbox.probe import probe

    found = asyncio.run(probe())
    for packages, allow_weak in {(stage.sandbox.packages, stage.sandbox.allow_weak) for stage in runs_code}:
        if packages and (found.tier or allow_weak):
            asyncio.run(_start_sandbox(packages, allow_weak))
    if found.tier == "A":
        return []
    if found.tier is None and not all(stage.sandbox.allow_weak for stage in runs_code):
        raise InputError(
            f"{found.summary}\n`rayzero doctor` says how to mend it; sandbox.allow_weak=true runs programs nevertheless"
        )
    return [f"sandbox: {found.summary}"]


async def _start_sandbox(packages: tuple[str, ...], allow_weak: bool) -> None:
    from rewards.sandbox.pool import Sandbox

    async with Sandbox(slots=1, packages=packages, allow_weak=allow_weak):
        pass


def _check_reward(named: str, name: str) -> None:
    """Whether a reward function exists. Its module is parsed, not imported: importing runs it."""
    # Only here: the built-in rewards bring numpy.
    from rewards.builtin import BUILTIN
    from rewards.functions import MOVED, is_url

    if name in BUILTIN:
        return
    if is_url(name):
        return
    origin, colon, function = name.rpartition(":")
    if not colon:
        raise InputError(
            f"{named}: unknown reward function {name!r}{did_you_mean(name, BUILTIN)}\n"
            f"built in: {', '.join(BUILTIN)}; your own: path/to/file.py:function or package.module:function; "
            "a reward server: its URL"
        )
    if origin in MOVED:
        return  # the rubric refuses it and says the new name
    file = Path(origin) if origin.endswith(".py") else _module_file(named, name, origin)
    if file is None:
        return
    if not file.is_file():
        raise InputError(f"{named}: {name!r}: no file {origin} (seen from {Path.cwd()})")
    try:
        defined = _defined_names(ast.parse(file.read_bytes(), filename=str(file)))
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{named}: {name!r}: {file} is not valid Python: {error}") from None
    except OSError as error:
        raise InputError(f"{named}: {name!r}: {file} cannot be read: {error.strerror}") from None
    if "*" not in defined and function not in defined:
        known = f"; it defines {', '.join(sorted(defined)[:8])}" if defined else ""
        raise InputError(f"{named}: {file} defines no {function!r}{did_you_mean(function, defined) or known}")


def _module_file(named: str, name: str, module: str) -> Path | None:
    """Source file of a module, found without importing its parents; None when it has no source to look into."""
    spec: ModuleSpec | None = None
    search: Any = None
    parts = module.split(".")
    for i in range(len(parts)):
        # The first by every finder, for a package may be installed as a link to its sources; none of them imports it.
        spec = PathFinder.find_spec(".".join(parts[: i + 1]), search) if i else find_spec(parts[0])
        if spec is None:
            raise InputError(
                f"{named}: {name!r}: no module {'.'.join(parts[: i + 1])!r} in this environment; "
                f"install it, or name a file: path/to/file.py:{name.rpartition(':')[2]}"
            )
        search = spec.submodule_search_locations or []
    origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


def _defined_names(module: ast.Module) -> set[str]:
    """Names at the top of a module that may be functions."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name) for alias in node.names)
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
    return names
