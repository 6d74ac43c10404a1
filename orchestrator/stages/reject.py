"""Rejection sampling: the model's own answers, scored and filtered, become rows to train on.

    prompts ─ overlap with evaluation sets ─▶ sample k, score ─▶ samples/ ─▶ select (orchestrator/data/selection.py) ─▶ data/

Samples are written as they come, so that a run that was stopped goes on with the prompts that are left and asks none
twice. Every row says where it is from: prompt, sample, scores, model, seed.

Samples are scored as they were given. Where the source says that a question is a simple one (`keep_thought`), the thought is
then taken out, as DeepSeek-R1 has none in its answers to simple queries (arXiv:2501.12948, section 2.3.3), and stands in a
column of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from orchestrator.config.rubrics import correct_label, rubrics_of
from orchestrator.data.prompts import question_form
from orchestrator.data.selection import SampledRow, Selection, select
from orchestrator.data.similarity import Passages
from orchestrator.loop.context import StageContext
from orchestrator.run.sampled_rows import read_samples, remember_prompts, write_part, write_rows
from orchestrator.sampling import scored_groups
from rewards.text.readability import readability
from rewards.text.response import read_response, without_thought
from rewards.types import RubricSpec, ScoredGroup
from rollout.data.json_text import json_text
from rollout.data.rows import Row
from rollout.data.sources import load_rows
from rollout.data.templates import worded
from rollout.data.unchanged import check_unchanged
from rollout.types import Prompt

FLAG = "readability."
"""What stands before the name of a flag among the metrics of a score."""
IN_FLIGHT = 4
"""Groups asked for at a time, in terms of what the engines decode at a time."""


async def run_reject(context: StageContext) -> None:
    stage, settings = context.stage, context.stage.reject
    sets = context.load_prompts()
    asked, in_form = {}, {}
    for name, section in stage.data.sources.items():
        form = question_form(section, stage)
        for row in load_rows(section.source(name), context.recipe.seed):
            asked[row.row_id] = row
            # What is learned from the rows that are left is an answer to what was asked.
            dialogue = row.dialogue and worded(row.dialogue, form)
            in_form[row.row_id] = replace(row, question=worded(row.question, form), dialogue=dialogue)
    prompts = [prompt for own in sets.prompts.values() for prompt in own]
    clean = without_overlap(context, prompts, asked)
    folder = context.store.folder / stage.name / "samples"
    check_unchanged("prompts", *remember_prompts(folder, sets.fingerprints()))
    done = {row["prompt_id"] for row in read_samples(folder)}
    left = [(number, prompt) for number, prompt in enumerate(clean) if prompt.prompt_id not in done]
    if done:
        context.display.line(f"{stage.name}: continues after {len(done):,} of {len(clean):,} prompts")

    await context.begin_rewards(sets)
    await context.publish(0)
    rubrics = rubrics_of(stage)
    with context.display.bar(stage.name, len(clean), len(clean) - len(left)) as bar:
        for start in range(0, len(left), settings.shard_prompts):
            part = left[start : start + settings.shard_prompts]
            scored = await sample(context, part)
            rows = [row for group in scored for row in sample_rows(group, in_form, context.model_path, rubrics)]
            await context.written(partial(write_part, folder, rows))
            bar.advance(f"reward {_mean([r for group in scored for r in group.rewards]):.3f}", by=len(part))

    order = {prompt.prompt_id: number for number, prompt in enumerate(clean)}
    samples = sorted(read_samples(folder), key=lambda row: (order.get(row["prompt_id"], -1), row["sample"]))
    chosen = select(samples, settings)
    report(context, len(prompts) - len(clean), len(samples), chosen)
    await context.written(partial(write_rows, context.store.data_folder(stage.name), chosen.kept))


def without_overlap(context: StageContext, prompts: Sequence[Prompt], asked: Mapping[str, Row]) -> list[Prompt]:
    """Prompts that share no passage with an evaluation set of any stage of the recipe."""
    words = context.stage.reject.overlap_words
    if not words:
        return list(prompts)
    sections = {name: section for stage in context.recipe.stages for name, section in stage.eval.sets.items()}
    held_out = [row.question for name, section in sections.items() for row in load_rows(section.source(name), seed=0)]
    passages = Passages(held_out, words)
    return [prompt for prompt in prompts if not passages.occur_in(asked[prompt.prompt_id].question)]


async def sample(context: StageContext, prompts: Sequence[tuple[int, Prompt]]) -> list[ScoredGroup]:
    """Scored groups of numbered prompts, in their order.

    Raises:
        ServiceError: an engine failed, or too many completions could not be scored.
    """
    stage = context.stage
    pool, rewards = await context.services.rollout(), await context.services.rewards()
    requests = [context.request(number, prompt, stage.rollout, stage.reject.samples) for number, prompt in prompts]

    def at_once() -> int:
        return IN_FLIGHT * stage.rollout.max_sequences * pool.replicas // stage.reject.samples

    return await scored_groups(pool, rewards, requests, at_once=at_once, scored_at_once=True, clocks=context.clocks)


def sample_rows(
    group: ScoredGroup, asked: Mapping[str, Row], model: str, rubrics: Mapping[str, RubricSpec]
) -> list[SampledRow]:
    """Rows of the completions that could be scored; the others leave with a count, and are no rows.

    `asked`: prompt → the row of its source, the question in its form.
    """
    prompt, rubric = group.prompt, rubrics[group.prompt.rubric]
    source, correct = asked[prompt.prompt_id], correct_label(rubric)
    numbers = {id(completion): number for number, completion in enumerate(group.group.completions)}
    rows = []
    for completion, score in zip(group.completions, group.scores, strict=True):
        text, thought = completion.text, ""
        flags = {name: on for name, on in score.metrics.items() if name.startswith(FLAG)}
        if not source.keeps_thought:
            thought = read_response(prompt.text, text).thought
            text = without_thought(prompt.text, text)
            flags = flags_of(rubric, prompt.text, text)
        rows.append(
            {
                "prompt_id": prompt.prompt_id,
                "sample": numbers[id(completion)],
                "source": prompt.source,
                **asked_columns(source),
                "answer": prompt.answer,
                "completion": text,
                "thought_removed": thought,
                "num_tokens": len(completion.token_ids),
                "finish_reason": completion.finish_reason,
                "right": score.breakdown.get(correct, 0.0) >= 1,
                "reward": score.value,
                "reward_parts": list(score.breakdown.items()),
                "flags": sorted(name.removeprefix(FLAG) for name, on in flags.items() if on),
                "model": model,
                "seed": completion.seed,
            }
        )
    return rows


def asked_columns(source: Row) -> dict[str, Any]:
    """Columns of what was asked: text, or messages and the tools that go with them."""
    if source.dialogue is None:
        return {"prompt": source.question}
    return {"prompt": list(source.dialogue.messages), "tools": json_text(source.dialogue.tools)}


def flags_of(rubric: RubricSpec, prompt: str, text: str) -> dict[str, float]:
    """The flags that a rubric looks for, of a text that it has not seen: what is left of a sample without its thought."""
    spec = next((spec for spec in rubric if spec.label == "readability"), None)
    if spec is None or not text:
        return {}
    found = readability(prompt, text, **spec.args)
    return {f"{FLAG}{name}": on for name, on in found.items() if name != "value"}


def report(context: StageContext, overlapping: int, samples: int, chosen: Selection) -> None:
    """Tell the yields, to the screen and to metrics.jsonl."""
    yields = {"samples": samples, **chosen.dropped, "kept": len(chosen.kept)}
    context.store.record(
        "reject",
        context.stage.name,
        prompts=chosen.prompts + overlapping,
        prompts_overlapping=overlapping,
        prompts_kept=chosen.prompts_kept,
        yields=yields,
        length_mean=_mean([row["num_tokens"] for row in chosen.kept]),
    )
    share = {name: f"{100 * count / max(samples, 1):.1f} %" for name, count in yields.items()}
    rows = [[name.replace("_", " "), f"{count:,}", share[name]] for name, count in yields.items()]
    context.display.table(f"{context.stage.name}: what became of the samples", ["", "samples", "share"], rows)
    context.display.line(
        f"{context.stage.name}: rows for {chosen.prompts_kept:,} of {chosen.prompts + overlapping:,} prompts"
        + (f" ({overlapping:,} shared a passage with an evaluation set)" if overlapping else "")
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
