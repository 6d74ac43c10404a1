"""What a stage starts from: its model, open in the learner while the engines come up, and the rows that earlier stages left."""

import asyncio
from typing import Any

from orchestrator.cluster.services import Services
from orchestrator.cluster.specs import build_spec, learner_spec
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.stage_kinds import kind_of
from orchestrator.config.wiring import parent_of, root_of
from orchestrator.data.prompts import stage_tokenizer
from orchestrator.display import Display
from orchestrator.run.folder import built_model, start_model
from orchestrator.run.remote import patiently
from orchestrator.run.store import RunStore
from rollout.data.sources import load_rows


async def open_model(
    recipe: Recipe, stage: Stage, store: RunStore, services: Services, display: Display
) -> tuple[str, Any]:
    """The model that a stage starts from (folder, hub id or URI), open in the learner, and its tokenizer. Engines come up meanwhile."""
    parent, root = parent_of(recipe.stages, stage), root_of(recipe.stages, stage)
    model_path = await patiently(store.shared, store.export_folder(parent.name)) if parent else stage.model.path
    model: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    await services.begin_learner(stage)
    if kind_of(stage).generates:
        lineage = root.model.model_dump_json(include={"path", "build"})
        await services.begin_rollout(stage, model, lineage=lineage)
    learner = await services.learner()
    model_path = model_path or await build_model(recipe, root, store, services, display)
    model.set_result(model_path)
    # Engines first: vLLM measures the GPU's memory as it comes up, and a rank that takes and gives back some would mislead it.
    await services.take_gpus()
    spec = learner_spec(stage, model_path, model_path, recipe.seed, services.device)
    folder = start_model(recipe, stage, store.folder)  # has the tokenizer, where the storage has the weights
    parameters, tokenizer = await asyncio.gather(learner.open(spec), asyncio.to_thread(stage_tokenizer, folder, stage))
    display.line(f"{stage.name}: {parameters:,} parameters, learner ready")
    store.record("stage", stage.name, event="model", parameters=parameters)
    return model_path, tokenizer


def with_rows_of_stages(stage: Stage, store: RunStore) -> Stage:
    """The stage with its sources that are stages replaced by the files that those left."""
    sources = {
        name: section.model_copy(
            update={
                "stage": "",
                "path": str(store.data_folder(section.stage)),
                "completion_column": section.completion_column or "completion",
                # Rows of questions without a right answer have none, and none is needed to learn from.
                "answer_column": "" if kind_of(stage).learns_from == "examples" else section.answer_column,
            }
        )
        if section.stage
        else section
        for name, section in stage.data.sources.items()
    }
    return stage.model_copy(update={"data": stage.data.model_copy(update={"sources": sources})})


async def build_model(recipe: Recipe, root: Stage, store: RunStore, services: Services, display: Display) -> str:
    """The small model that a stage begins with, made once a run for all stages that begin with the same."""
    folder = built_model(recipe, root, store.folder)
    if not (folder / "config.json").is_file():
        texts: list[str] = []
        if root.model.build.tokenizer == "bpe":
            sections = {
                name: section
                for each in recipe.stages
                for name, section in each.data.sources.items()
                if not section.stage
            }
            rows = [row for name, section in sections.items() for row in load_rows(section.source(name), recipe.seed)]
            texts = [f"{row.question}\n{row.completion or row.answer or row.chosen}" for row in rows]
        remote = store.remote
        place = remote.begin(folder) if remote else str(folder)
        count, files = await (await services.learner()).build(build_spec(root, recipe.seed), texts, place)
        if remote:
            await patiently(remote.commit, folder, files)
        display.line(f"built a Qwen2 of {count:,} parameters in {folder}")
    return await patiently(store.shared, folder)
