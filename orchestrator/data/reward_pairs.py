"""Pairs as a reward model reads them: the tokenizer that its export will have, and what that makes of a pair."""

import copy
from collections.abc import Sequence
from typing import Any

from orchestrator.config.recipe import Stage
from orchestrator.data.pairs import need_end
from rewards.models.pair_encoding import PairEncoder, literal_template, pair_of
from rollout.data.rows import Dialogue
from rollout.data.template_settings import is_chat
from rollout.data.templates import Template
from rollout.data.thoughts import completion_behind
from rollout.data.tokens import opening_of


def reward_tokenizer(tokenizer: Any, template: Template) -> Any:
    """A copy whose chat template writes a pair as the reward model is to read it.

    That of the tokenizer under a chat template; under any other: question, response, end of sequence, without the words that
    tell a policy how to answer. Raises InputError when the tokenizer has no end-of-sequence token.
    """
    tokenizer = copy.deepcopy(tokenizer)
    if not is_chat(template.name):
        need_end(tokenizer)
        between = "" if template.name == "plain" else "\n\n"
        # What the tokenizer puts before every text (`<s>`) a chat template has to write itself.
        start = "".join(tokenizer.convert_ids_to_tokens(opening_of(tokenizer)))
        tokenizer.chat_template = literal_template(start, between, tokenizer.eos_token)
    return tokenizer


def encoder(stage: Stage, tokenizer: Any, template: Template, named: str) -> Any:
    """(what is asked, response) → token ids, as the reward service has them for a prompt that was rendered by `template`."""
    pairs = PairEncoder(tokenizer, named)

    def encode(texts: Sequence[tuple[str | Dialogue, str]]) -> list[list[int]]:
        prompts = [template.render(asked) for asked, _ in texts]
        answered = [
            (prompt, completion_behind(prompt, response)) for prompt, (_, response) in zip(prompts, texts, strict=True)
        ]
        rows = pairs.encode([pair_of(prompt, response, stage.reward_model.scope) for prompt, response in answered])
        return [row.ids for row in rows]

    return encode
