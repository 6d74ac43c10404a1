"""The model card of an exported model: front matter that a hub reads, and for people its base, recipe, data and figures.

Names of files are given, folders of this machine are not: a card is made to be published.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from orchestrator.config.keys import flat
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.sections.data import SourceSection
from orchestrator.config.sections.rewards import FunctionSection
from orchestrator.config.stage_kinds import kind_of
from orchestrator.config.wiring import data_parents, parent_of
from orchestrator.export.base import Base
from orchestrator.export.chosen import Chosen
from orchestrator.export.figures import Reading, hub_set, readings
from orchestrator.plan.batches import changes_of
from orchestrator.plan.machine import version_of
from orchestrator.results.words import parameter_words
from orchestrator.run.resume import FREE

NOT_TOLD = (
    "name",
    "kind",
    "model_from",
    "model.path",
    "model.build",
    "data.sources",
    "eval",
    "sandbox",
    "rollout.engine",
    "schedule",
)
"""Keys of a stage, and beginnings of them, that are told in words, or are of the machine."""
PLACE = re.compile(r"(?:~|\.{0,2})?/[^:]*/([^/:]+)")
"""Path of a file or folder of this machine; its group is the name alone."""


def model_card(chosen: Chosen, base: Base, *, name: str, adapter: bool) -> str:
    """README.md of an exported model.

    Args:
        name: what it is called: its name on a hub, or its folder's.
        adapter: whether the folder holds the adapter alone.
    """
    figures = readings(chosen)
    parts = [
        f"---\n{_front_matter(chosen, base, figures, name, adapter=adapter)}\n---",
        f"# {_plain(name.rpartition('/')[2])}",
        _lead(chosen, base, adapter=adapter),
        "## Figures",
        _figures(chosen, figures),
        "## How it was trained",
        *_stages(chosen.recipe, chosen.stage, chosen.step),
        "## How to load it",
        _usage(chosen.stage, base, name, adapter=adapter),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(chosen: Chosen, base: Base, figures: list[Reading], name: str, *, adapter: bool) -> str:
    """YAML that the hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    task = _task(chosen.stage)
    results = [
        EvalResult(
            task_type=task,
            dataset_type=figure.dataset,
            dataset_name=figure.set,
            metric_type=figure.metric,
            metric_name=figure.words,
            metric_value=round(figure.value, 4),
        )
        for figure in figures
        if figure.rated
    ]
    kinds = [stage.kind.replace("_", "-") for stage in _line(chosen.recipe, chosen.stage)]
    lora = ["lora"] if chosen.stage.learner.lora_rank else []
    data = ModelCardData(
        base_model=base.hub_id or None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag=task,
        tags=list(dict.fromkeys(["rayzero", *reversed(kinds), *lora])),
        datasets=_hub_sets(chosen.recipe, chosen.stage) or None,
        model_name=name.rpartition("/")[2],
        eval_results=results or None,
        license=base.licence.get("license"),
        license_name=base.licence.get("license_name"),
        license_link=base.licence.get("license_link"),
    )
    return str(data.to_yaml())


def _task(stage: Stage) -> str:
    return "text-classification" if kind_of(stage).leaves == "rewards" else "text-generation"


def _lead(chosen: Chosen, base: Base, *, adapter: bool) -> str:
    stage, record = chosen.stage, chosen.record
    origin = f"[{base.hub_id}](https://huggingface.co/{base.hub_id})" if base.hub_id else _code(base.words)
    what = (
        "A LoRA adapter of" if adapter else "A reward model made of" if _task(stage) != "text-generation" else "Made of"
    )
    size = parameter_words(record.parameters)
    steps = f"step {chosen.step:,}" + (f" of {record.planned_steps:,}" if record.planned_steps else "")
    version = version_of("rayzero")
    said = f"{what} {origin}" + (f" ({size})" if size else "") + f" by {kind_of(stage).words}: "
    said += f"stage `{stage.name}` of the recipe `{chosen.recipe.name}`, seed {chosen.recipe.seed}, {steps}. "
    said += f"Trained with RayZero{' ' + version if version else ''}."
    if chosen.recipe.description:
        said += f"\n\nThe recipe: {_plain(chosen.recipe.description)}"
    if not base.licence and not base.built:
        said += "\n\nThe licence of the base was not known where this was written; its terms hold for this model too."
    return said


def _figures(chosen: Chosen, figures: list[Reading]) -> str:
    if not figures:
        return f"Nothing was measured at step {chosen.step:,} of the stage."
    rows = [f"| {_cell(each.set)} | {each.of} | {_cell(each.words)} | {each.shown} |" for each in figures]
    settings = chosen.stage.eval
    said = "\n".join(["| set | of | figure | value |", "|---|---|---|---|", *rows])
    if any(each.metric in ("pass@1", "cons@k") for each in figures):
        said += f"\n\nSamples at temperature {settings.temperature:g} and top-p {settings.top_p:g}, {settings.samples} a problem."
    return f"{said}\n\nMeasured by the run itself. The model: {_plain(chosen.why)}."


def _line(recipe: Recipe, stage: Stage) -> list[Stage]:
    """The stage and those whose models or rows it comes from, in the order of the recipe."""
    wanted, found = [stage], {stage.name}
    known = {each.name: each for each in recipe.stages}
    while wanted:
        each = wanted.pop()
        parent = parent_of(recipe.stages, each)
        for name in (*([parent.name] if parent else []), *data_parents(each)):
            if name not in found:
                found.add(name)
                wanted.append(known[name])
    return [each for each in recipe.stages if each.name in found]


def _hub_sets(recipe: Recipe, stage: Stage) -> list[str]:
    sources = [source for each in _line(recipe, stage) for source in each.data.sources.values()]
    return list(dict.fromkeys(hub_set(source) for source in sources if hub_set(source)))


def _stages(recipe: Recipe, stage: Stage, step: int) -> Iterator[str]:
    """Every stage that led to the model: what it was, its data, its rewards, its settings."""
    for number, each in enumerate(_line(recipe, stage), 1):
        parent = parent_of(recipe.stages, each)
        origin = f"from the model of `{parent.name}`" if parent else "from the base"
        steps = f", step {step:,}" if each is stage else ""
        said = [f"{number}. `{each.name}`: {kind_of(each).words}, {origin}{steps}"]
        said += [f"   - data: {_source(name, source)}" for name, source in each.data.sources.items()]
        used = {source.rubric for source in each.data.sources.values()} if kind_of(each).samples else set()
        said += [f"   - rewards `{name}`: {_rubric(each, name)}" for name in each.rewards.rubrics if name in used]
        said += [f"   - {_plain(change)}" for change in changes_of(each)]
        yield "\n".join(said)
        if settings := _settings(each):
            yield (
                "   Settings beside the defaults:\n\n   ```toml\n"
                + "\n".join(f"   {line}" for line in settings)
                + "\n   ```"
            )


def _source(name: str, source: SourceSection) -> str:
    """A source in words, without its folder."""
    if hub := hub_set(source):
        what = f"[{hub}](https://huggingface.co/datasets/{hub})"
        what += "".join(
            f", {key} `{value}`" for key in ("subset", "split", "revision") if (value := getattr(source, key))
        )
    elif source.stage:
        what = f"rows of `{source.stage}`"
    elif source.task:
        what = f"the generated task `{source.task}`"
    else:
        what = _code(_without_folders(source.path)) + (f" (`{source.set}`)" if source.set else "")
    share = f", weight {source.weight:g}" if source.weight != 1 else ""
    limit = f", the first {source.limit:,} rows" if source.limit else ""
    return f"{_code(name)}, {what}{share}{limit}"


def _rubric(stage: Stage, name: str) -> str:
    return ", ".join(_function(label, each) for label, each in stage.rewards.rubrics[name].items())


def _function(label: str, function: FunctionSection) -> str:
    """A reward function with its weight. Arguments only of those that ship and ask nobody: others' may be secret."""
    from rewards.builtin import DOCUMENTED

    name = function.name or label
    told = (function.model_extra or {}) if name in DOCUMENTED else {}
    arguments = ", ".join(f"{key}={json.dumps(_told(value), ensure_ascii=False)}" for key, value in told.items())
    called = _without_folders(name) + (f"({arguments})" if arguments else "")
    gate = f" where `{function.gate}` is 1" if function.gate else ""
    return f"{_code(called)} × {function.weight:g}{gate}"


def _settings(stage: Stage) -> list[str]:
    """What a stage has beside the defaults, as TOML, without what says only on what it was computed."""
    values = flat(stage.model_dump(mode="json", exclude_defaults=True))
    told = {
        key: value for key, value in values.items() if not key.startswith((*NOT_TOLD, "rewards.")) and key not in FREE
    }
    return [f"{key} = {json.dumps(_told(value), ensure_ascii=False)}" for key, value in told.items()]


def _told(value: Any) -> Any:
    if isinstance(value, list):
        return [_told(each) for each in value]
    return _without_folders(value) if isinstance(value, str) else value


def _without_folders(text: str) -> str:
    """A path of this machine by its last part alone (`own.py:score`); an address by nothing but that it is one."""
    if re.match(r"https?://", text):
        return "(a server)"
    return PLACE.sub(r"\1", text.rstrip("/")) if PLACE.match(text) else text


def _usage(stage: Stage, base: Base, name: str, *, adapter: bool) -> str:
    kind = "AutoModelForCausalLM" if _task(stage) == "text-generation" else "AutoModelForSequenceClassification"
    lines = [
        f"from transformers import AutoTokenizer, {kind}",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({name!r})",
    ]
    if adapter:
        options = ", num_labels=1" if kind != "AutoModelForCausalLM" else ""
        lines[1:1] = ["from peft import PeftModel"]
        lines += [
            f"base = {kind}.from_pretrained({(base.hub_id or 'BASE')!r}{options})",
            f"model = PeftModel.from_pretrained(base, {name!r})",
        ]
    else:
        lines += [f"model = {kind}.from_pretrained({name!r})"]
    code = "\n".join(lines)
    template = stage.data.template
    asked = {"chat": "its chat template", "plain": "the bare question"}.get(
        template, f"the template `{_without_folders(template)}`"
    )
    return f"```python\n{code}\n```\n\nIn training, prompts were put as {asked}."


def _plain(text: str) -> str:
    """Text of a user's that neither ends a line nor begins a tag."""
    return " ".join(text.split()).replace("<", "&lt;")


def _code(text: str) -> str:
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")
