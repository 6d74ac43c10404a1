"""`rayzero check`: the resolved recipe, the places of its processes, and the memory that it takes."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.commands.arguments import Overrides, RecipeArgument, load
from rollout.errors import visible

if TYPE_CHECKING:
    from orchestrator.config.recipe import Recipe, Stage


def check(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    full: Annotated[
        bool, typer.Option("--full", help="Print every setting, as TOML, instead of what differs from the defaults.")
    ] = False,
    show_prompts: Annotated[
        int,
        typer.Option(
            "--show-prompts", min=0, metavar="N", help="Print the first N rows of every source as the model reads them."
        ),
    ] = 0,
) -> None:
    """Check a recipe and everything it needs; start nothing.

    Reads the data, the model folder and the machine, tries reward functions of your own on a row, and shows the
    resolved recipe, what it places where, and an estimate of its memory.
    """
    from orchestrator.checks.preflight import preflight
    from orchestrator.config.load import to_toml

    resolved = load(recipe, overrides)
    if full:
        import tomli_w

        typer.echo(tomli_w.dumps(to_toml(resolved)))
    else:
        typer.echo(visible("\n".join(_differences(resolved))))
    # Before what is lacking is told: what a recipe takes is asked on machines that do not have it, too.
    _print(["", *_placement(resolved)], full)
    _print([f"note: {note}" for note in preflight(resolved)], full)
    if show_prompts:
        from orchestrator.data.shown import shown

        _print(["", *shown(resolved, show_prompts)], full)


def _print(lines: Iterable[str], full: bool) -> None:
    """Lines; in front of TOML they are comments, so that the output is a recipe again."""
    for line in lines:
        typer.echo(visible(f"# {line}".rstrip() if full else line))


def _differences(recipe: "Recipe") -> list[str]:
    """The resolved recipe, without what is as by default; first what holds in all stages."""
    from orchestrator.config.keys import flat
    from orchestrator.plan.batches import changes_of

    head = f"recipe {recipe.name}: {recipe.description}" if recipe.description else f"recipe {recipe.name}"
    lines = [head, f"  seed = {recipe.seed}"]
    lines += _settings(
        flat(recipe.model_dump(mode="json", exclude_defaults=True, include={"cluster", "track", "tracking"}))
    )
    dumps = (stage.model_dump(mode="json", exclude_defaults=True, exclude={"schedule"}) for stage in recipe.stages)
    stages = [flat(dump) for dump in dumps]
    shared = {
        key: value
        for key, value in stages[0].items()
        if key not in ("name", "kind") and all(key in stage and stage[key] == value for stage in stages)
    }
    if len(stages) > 1 and shared:
        lines += ["all stages", *_settings(shared)]
    for stage, settings in zip(recipe.stages, stages, strict=True):
        own = {key: value for key, value in settings.items() if key not in ("name", "kind")}
        if len(stages) > 1:
            own = {key: value for key, value in own.items() if key not in shared}
        lines += [f"stage {stage.name} ({stage.kind})", *_settings(own)]
        lines += [f"  {change}" for change in changes_of(stage)]
    return lines


def _settings(values: dict[str, Any]) -> list[str]:
    return [f"  {key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]


def _placement(recipe: "Recipe") -> list[str]:
    """Lines about the places of the processes of every stage, and the memory that they take."""
    from orchestrator.config.stage_kinds import kind_of
    from orchestrator.plan import machine
    from orchestrator.plan.batches import batch_plan
    from orchestrator.plan.gpu_memory import learner_gpu, most_tokens, sure_tokens
    from orchestrator.plan.host_memory import host_memory
    from orchestrator.plan.memory import adapter_parameters, memory, parameters
    from orchestrator.plan.placement import MANY, gpu_share, shares_gpus, stage_places

    machine.compute_on(recipe.cluster.device)
    here = not recipe.cluster.address
    stages_of: dict[str, list[str]] = {}
    for stage in recipe.stages:
        cores, _ = stage_places(stage)
        gpus = len(machine.gpu_names())
        places = f"{cores:g} CPU of {machine.cpu_count()} here" if here else f"{cores:g} CPU on the cluster"
        if here and machine.on_gpus():
            places += f", {gpu_share(stage, gpus):g} GPU of {gpus} here"
            if shares_gpus(stage, gpus):
                places += ", where engines and ranks take turns"
        elif recipe.cluster.device != "cpu":
            places += f", and {gpu_share(stage, MANY):g} GPU{'' if machine.on_gpus() else ' where there are any'}"
        stages_of.setdefault(f"places  {_parts(stage)} = {places}", []).append(stage.name)
        on_host = kind_of(stage).trains and not machine.on_gpus()
        sizes = host_memory(stage) if on_host else memory(stage)
        named = ", ".join(f"{what} {machine.in_units(size)}" for what, size in sizes.items())
        total = machine.in_units(sum(sizes.values()))
        most = f"with packs of {most_tokens(stage):,} tokens" if "activations" in sizes else "without activations"
        text = f"about {total} {most} ({named})" if sizes else "not known before the model is here"
        stages_of.setdefault(f"memory  {text}", []).append(stage.name)
        if here and machine.on_gpus() and kind_of(stage).trains and (parts := learner_gpu(stage, sure_tokens(stage))):
            named = ", ".join(f"{what} {machine.in_units(size)}" for what, size in parts.items())
            text = f"about {machine.in_units(sum(parts.values()))} of a rank's GPU while it trains ({named})"
            stages_of.setdefault(f"memory  {text}", []).append(stage.name)
        if adapters := adapter_parameters(stage):
            share = f"{adapters:,} parameters of adapters beside {parameters(stage.model):,} frozen ones"
            stages_of.setdefault(f"trains  {share}", []).append(stage.name)
        if plan := batch_plan(stage):
            stages_of.setdefault(f"learns  {plan}", []).append(stage.name)
    return [
        line if len(names) == len(recipe.stages) else f"{line} (stage {', '.join(names)})"
        for line, names in stages_of.items()
    ]


def _parts(stage: "Stage") -> str:
    """The processes that a stage starts, as a sum of cores."""
    rollout, learner = stage.rollout, stage.learner
    workers = f" × {rollout.tensor_parallel} workers" if rollout.tensor_parallel > 1 else ""
    return f"{rollout.replicas} engine{workers} × {rollout.cpus:g} + {learner.ranks} rank × {learner.cpus:g}"
