"""What `rayzero eval` measures: the recipe of one stage that the evaluation of a model needs."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.config.load import load_recipe, parse_recipe, to_toml
from orchestrator.config.recipe import Recipe
from orchestrator.config.schedule import Schedule
from orchestrator.config.sections.data import SourceSection
from orchestrator.config.trained_rewards import exports_in, with_stage_models
from orchestrator.plan.model_folder import has_chat_template, read_config
from rollout.data.known_sets import KNOWN_SETS
from rollout.data.template_settings import CHAT, is_chat
from rollout.errors import InputError

LENGTH = 4096
"""Tokens of prompt and completion when a model is evaluated without a recipe, unless it holds fewer."""


def evaluation_recipe(
    model: str,
    *,
    recipe: str,
    overrides: Sequence[str],
    sets: Sequence[str],
    columns: Mapping[str, str],
    limit: int | None = None,
    settings: Mapping[str, Any],
    template: str,
    run: Path | None = None,
) -> Recipe:
    """A recipe of one stage that holds what an evaluation of `model` needs.

    Args:
        recipe: name or path to take the last stage of; empty: none, so `sets` must say on what.
        sets: `NAME=PATH`, instead of the recipe's.
        columns: keys of those in `sets` that are not known by name.
        limit: problems of every set; None: as the set says.
        settings: keys of `eval`.
        run: that holds the reward models which rubrics name by stage; None: there is none.
    """
    base = load_recipe(recipe, overrides) if recipe else _plain_recipe(model, sets, overrides)
    raw = to_toml(base)
    stage = raw["stages"][-1]
    stage["rollout"], stage["schedule"] = Schedule(base.stages[-1]).last.rollout.model_dump(mode="json"), []
    stage["model"]["path"] = model
    stage["learner"]["lora_rank"] = 0  # an export is whole
    stage["model_from"] = ""
    stage["eval"].update(settings)
    _ask_by(stage["data"], template, load_recipe(recipe) if run and recipe == f"{run}/" else None)
    if sets:
        stage["eval"]["sets"] = _chosen(sets, columns, stage["rewards"]["rubrics"])
    elif columns:
        raise InputError(f"--{next(iter(columns)).replace('_', '-')} describes the files of --set; there is none")
    if limit:
        for chosen in stage["eval"]["sets"].values():
            chosen["limit"] = limit
    # Conversations have no answer to check.
    stage["eval"]["sets"] = {
        name: section for name, section in stage["eval"]["sets"].items() if not section.get("messages_column")
    }
    if not stage["eval"]["sets"]:
        raise InputError(f"the last stage of {recipe} has no evaluation set; give one with --set NAME=PATH")
    if not stage["eval"]["samples"] and not stage["eval"]["greedy"]:
        raise InputError("--no-greedy with --samples 0 decodes nothing; leave one of them out")
    # An evaluation asks nothing of the training data, and a live run may hold the ports.
    stage["data"]["sources"] = {
        name: {key: value for key, value in chosen.items() if key in SourceSection.model_fields}
        for name, chosen in stage["eval"]["sets"].items()
    }
    cluster = base.cluster.model_dump(mode="json", exclude={"dashboard_port", "metrics_port"})
    made = parse_recipe({"name": base.name, "seed": base.seed, "cluster": cluster, "stages": [stage]})
    asked = {section.rubric for section in made.stages[0].eval.prompt_sets.values()}
    return made.model_copy(
        update={"stages": (with_stage_models(base, made.stages[0], partial(_reward_model, run), asked),)}
    )


def _reward_model(run: Path | None, name: str) -> Path | str:
    """The model that a stage of a run trained, as reward workers on any host read it."""
    from orchestrator.run.stubs import stored_at  # only here: brings pyarrow

    export = exports_in(run, "evaluate the model of such a run: rayzero eval RUN/STAGE")(name)
    return stored_at(export) or export


def _ask_by(data: dict[str, Any], template: str, trained: Recipe | None) -> None:
    """Set the template: as the user says, or that of the model. `trained`: the recipe of the run that the model is of."""
    before = trained.stages[-1].data if trained else None
    # The chat template of an export carries what its recipe said; what the user says over it stays.
    carried: Any = (("template", CHAT), ("system", ""), ("template_args", {}))
    for key, nothing in carried if before and is_chat(before.template) else ():
        if data[key] == getattr(before, key):
            data[key] = nothing
    if template:
        data["template"] = template
        data.update({} if is_chat(template) else {"system": "", "template_args": {}})


def _chosen(sets: Sequence[str], columns: Mapping[str, str], rubrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sets that a user names, as `eval.sets` takes them."""
    chosen: dict[str, dict[str, Any]] = {}
    for name, path in map(_named_set, sets):
        if name in KNOWN_SETS:
            chosen[name] = {"set": name, "path": path}
        else:
            rubric = "default" if "default" in rubrics else next(iter(rubrics))
            chosen[name] = {"path": path, "rubric": rubric, **columns}
    if columns and all(name in KNOWN_SETS for name in chosen):
        raise InputError(
            f"--{next(iter(columns)).replace('_', '-')} describes sets that are not known by name, as {', '.join(chosen)} "
            "is; give a file with other columns another name"
        )
    return chosen


def _plain_recipe(model: str, sets: Sequence[str], overrides: Sequence[str]) -> Recipe:
    """The recipe of a model that comes without a recipe: its chat template if it has one, and lengths that it can hold."""
    if not sets:
        raise InputError(f"{model}: evaluate on what? give --set NAME=PATH, or --recipe RECIPE for the recipe's sets")
    folder = Path(model)
    config = read_config(folder, f"MODEL = {model!r}") if folder.is_dir() else {}
    positions = config.get("max_position_embeddings", LENGTH)
    length = min(LENGTH, positions) if isinstance(positions, int) else LENGTH
    raw = {
        "name": "evaluation",
        "model": {"path": model, "max_tokens": length},
        "data": {
            "template": "chat" if has_chat_template(folder) else "r1-zero",
            "max_prompt_tokens": length // 4,
            "sources": {name: {"path": path} for name, path in map(_named_set, sets)},
        },
        "rollout": {"max_tokens": length - length // 4},
        "stages": [{"name": "evaluation", "kind": "grpo"}],
    }
    return parse_recipe(raw, overrides)


def _named_set(entry: str) -> tuple[str, str]:
    name, equals, path = entry.partition("=")
    if not equals or not name or not path:
        raise InputError(f"--set {entry}: write it as NAME=PATH, such as --set gsm8k=data/test.jsonl")
    return name, path
