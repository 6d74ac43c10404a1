"""A few prompts, examples and pairs of a stage as the model will read them: the text, and token by token where parts meet."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from learner.batch import TrainingSequence
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.stage_kinds import kind_of
from orchestrator.config.wiring import line_of
from orchestrator.data.examples import load_examples
from orchestrator.data.pairs import Reader, load_pair_sets, policy_pairs, scored_pairs
from orchestrator.data.prompts import load_prompts, load_tokenizer, stage_template
from orchestrator.data.reward_pairs import encoder, reward_tokenizer
from rollout.data.chat_template import dress
from rollout.types import Prompt

LEGEND = "│ is read, ┃ is trained on; below each text some of its tokens, by id and text"
JOINT = 5
"""Tokens on each side of a joint."""


def shown(recipe: Recipe, count: int) -> Iterator[str]:
    """Lines about the first `count` rows of every source and evaluation set.

    Raises:
        InputError: data or tokenizer cannot be read, or rows cannot be rendered.
    """
    yield LEGEND
    for stage in recipe.stages:
        tokenizer, why = _tokenizer(recipe, stage)
        if tokenizer is None:
            yield f"stage {stage.name}: {why}"
            continue
        yield f"stage {stage.name}: {_said(stage)}"
        yield from _of_sources(stage, tokenizer, recipe.seed, count)
        if kind_of(stage).generates:
            sets = load_prompts(stage.eval.prompt_sets, stage, tokenizer, seed=0)
            yield from _of_prompts(f"stage {stage.name}, evaluation set", sets.prompts, tokenizer, count)


def _tokenizer(recipe: Recipe, stage: Stage) -> tuple[Any, str]:
    """The tokenizer that the stage's model will have, or why there is none yet."""
    line = line_of(recipe.stages, stage)
    model = line[0].model
    if model.path:
        tokenizer = load_tokenizer(model.path, model.trust_remote_code)
    elif model.build.tokenizer == "characters":
        from learner.model.small import character_tokenizer

        tokenizer = character_tokenizer()
    else:
        return None, "its tokenizer is made when the run begins; model.path names one that is there"
    for each in line:
        dress(tokenizer, each.data.dress)
    return tokenizer, ""


def _said(stage: Stage) -> str:
    """What the recipe says of the form of prompts."""
    data = stage.data
    settings: dict[str, Any] = {"data.template": data.template}
    settings |= {"data.system": data.system} if data.system else {}
    settings |= {f"data.template_args.{name}": value for name, value in data.template_args.items()}
    settings |= {"data.few_shot.path": data.few_shot.path} if data.few_shot.path else {}
    return ", ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items())


def _of_sources(stage: Stage, tokenizer: Any, seed: int, count: int) -> Iterator[str]:
    where = f"stage {stage.name}, source"
    match kind_of(stage).learns_from:
        case "prompts":
            sources = {name: section for name, section in stage.data.sources.items() if not section.stage}
            prompts = load_prompts(sources, stage, tokenizer, seed)
            yield from _of_prompts(where, prompts.prompts, tokenizer, count)
        case "examples":
            sources = {name: section for name, section in stage.data.sources.items() if not section.stage}
            for name, rows in (load_examples(sources, stage, tokenizer, seed).sequences if sources else {}).items():
                for number, row in enumerate(islice(rows, count), 1):
                    yield f"{where} {name}, example {number} of {len(rows):,}: {_counted(row)}"
                    yield from _of_sequence(row, tokenizer)
        case "pairs":
            read, learned = _pair_reader(stage, tokenizer), kind_of(stage).generates
            for name, pairs in load_pair_sets(stage, read, 0.0, seed).training.items():
                for number, pair in enumerate(islice(pairs, count), 1):
                    for which, row in (("better", pair.chosen), ("worse", pair.rejected)):
                        said = _counted(row) if learned else f"{len(row.token_ids)} tokens are scored"
                        yield f"{where} {name}, pair {number} of {len(pairs):,}, the {which} one: {said}"
                        yield from (_of_sequence if learned else _of_scored)(row, tokenizer)


def _pair_reader(stage: Stage, tokenizer: Any) -> Reader:
    template = stage_template(stage, tokenizer)
    if kind_of(stage).generates:
        return policy_pairs(stage, template, tokenizer)
    scored = encoder(stage, reward_tokenizer(tokenizer, template), template, f"of stage {stage.name}")
    return scored_pairs(stage, scored)


def _of_prompts(where: str, sets: Mapping[str, Sequence[Prompt]], tokenizer: Any, count: int) -> Iterator[str]:
    for name, prompts in sets.items():
        for prompt in prompts[:count]:
            scored = f"rubric {prompt.rubric}, answer {prompt.answer!r}" if prompt.answer else f"rubric {prompt.rubric}"
            yield f"{where} {name}, {prompt.prompt_id} of {len(prompts):,}: {len(prompt.token_ids)} tokens, {scored}"
            yield from _block(_text(tokenizer, prompt.token_ids), "│")
            yield f"  begins  {_tokens(tokenizer, prompt.token_ids[:JOINT])}"
            yield f"  ends    {_tokens(tokenizer, prompt.token_ids[-JOINT:])}   the model goes on here"


def _of_sequence(row: TrainingSequence, tokenizer: Any) -> Iterator[str]:
    ids, first = row.token_ids.tolist(), row.first_target
    yield from _block(_text(tokenizer, ids[:first]), "│")
    yield from _block(_text(tokenizer, ids[first:]), "┃")
    yield f"  begins  {_tokens(tokenizer, ids[:JOINT])}"
    before, behind = (
        _tokens(tokenizer, ids[max(0, first - JOINT) : first]),
        _tokens(tokenizer, ids[first : first + JOINT]),
    )
    yield f"  joint   {before}   ┃ trains from here:   {behind}"
    yield f"  ends    {_tokens(tokenizer, ids[-JOINT:])}"


def _of_scored(row: TrainingSequence, tokenizer: Any) -> Iterator[str]:
    ids = row.token_ids.tolist()
    yield from _block(_text(tokenizer, ids), "│")
    yield f"  begins  {_tokens(tokenizer, ids[:JOINT])}"
    yield f"  ends    {_tokens(tokenizer, ids[-JOINT:])}   the score is read here"


def _counted(row: TrainingSequence) -> str:
    return f"{row.first_target} tokens are read, {row.num_targets} train"


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _block(text: str, bar: str) -> Iterator[str]:
    for line in text.split("\n"):
        yield f"  {bar} {line}"


def _tokens(tokenizer: Any, ids: Sequence[int]) -> str:
    """Each with its id: `1 '<s>'  3923 'What'`."""
    return "  ".join(f"{own} {_piece(tokenizer, own)!r}" for own in ids)


def _piece(tokenizer: Any, own: int) -> str:
    text = _text(tokenizer, [own])
    # Of a character that several tokens make up, one alone has no text.
    return str(tokenizer.convert_ids_to_tokens([own])[0]) if "\ufffd" in text else text
