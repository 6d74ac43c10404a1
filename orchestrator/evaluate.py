"""Evaluation by sampling: pass@1 over k samples, cons@k (majority vote), and greedy decoding, by dataset.

    pass@1   mean over problems of the share of k samples that are right (DeepSeek-R1, arXiv:2501.12948, section 3)
    cons@k   share of problems whose most frequent answer among the k samples is right; the earliest wins a tie
    greedy   share of problems that are right at temperature 0

The loop and `rayzero eval` both come through `evaluate_sets`. Generation goes through the rollout pool; a completion is
right when the `accuracy` reward says so.
"""

import asyncio
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.cluster import Device, ray_session
from orchestrator.config import EvalSection, Recipe
from orchestrator.data import load_prompts, load_tokenizer
from orchestrator.display import Display
from orchestrator.services import Services
from rewards.format_tags import format_reward
from rewards.math_answer import accuracy_reward, vote_of
from rollout.service import RolloutPool
from rollout.types import Prompt, RolloutGroup, Sampling

NUM_SAMPLES_KEPT = 8
"""Completions of each set that go into the record, for people to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """One set, one policy version. Shares are between 0 and 1; None where that way of decoding was not asked for."""

    set: str
    problems: int
    greedy: float | None
    pass_at_1: float | None
    cons_at_k: float | None
    k: int
    format: float
    """Share of completions (greedy ones, or else samples) in the R1 form."""
    length_mean: float
    """Tokens, of the same completions."""
    samples: tuple[dict[str, Any], ...]
    """prompt, answer, completion, correct."""

    def record(self) -> dict[str, Any]:
        """As metrics.jsonl and eval.json hold it."""
        return {
            "set": self.set,
            "problems": self.problems,
            "greedy": self.greedy,
            "pass@1": self.pass_at_1,
            "cons@k": self.cons_at_k,
            "k": self.k,
            "format": self.format,
            "length_mean": self.length_mean,
            "samples": list(self.samples),
        }


def evaluate_model(recipe: Recipe, model_path: str) -> list[dict[str, Any]]:
    """Start engines for a model (folder or hub id) and run every evaluation set of the recipe's last stage.

    Raises:
        InputError: the sets or the model cannot be read.
        ServiceError: an engine failed.
    """
    stage = recipe.stages[-1]
    tokenizer = load_tokenizer(model_path, stage.model.trust_remote_code)
    sets = load_prompts(stage.eval.prompt_sets, stage, tokenizer, seed=0)
    display = Display()
    for note in sets.notes():
        display.line(note)

    async def run(device: Device) -> list[EvalResult]:
        services = Services(device, recipe.cluster.start_timeout_s, display)
        try:
            model: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            model.set_result(model_path)
            await services.begin_rollout(stage, model)
            pool = await services.rollout()
            display.line(f"engine ready: {model_path}")
            return await evaluate_sets(pool, sets.prompts, stage.eval, stage.rollout.max_tokens, recipe.seed)
        finally:
            await services.close()

    with ray_session(recipe.cluster, "eval") as device:
        return [result.record() for result in asyncio.run(run(device))]


async def evaluate_sets(
    pool: RolloutPool, sets: Mapping[str, Sequence[Prompt]], settings: EvalSection, max_tokens: int, seed: int
) -> list[EvalResult]:
    """Every set through the engines as they are; the same `seed` draws the same samples."""
    return [
        await _evaluate(pool, name, prompts, settings, settings.max_tokens or max_tokens, seed)
        for name, prompts in sets.items()
    ]


async def _evaluate(
    pool: RolloutPool, name: str, prompts: Sequence[Prompt], settings: EvalSection, max_tokens: int, seed: int
) -> EvalResult:
    greedy = sampled = None
    if settings.greedy:
        greedy = await _generate(pool, f"eval/{name}/greedy", prompts, Sampling(temperature=0.0, max_tokens=max_tokens))
    if settings.samples:
        sampling = Sampling(
            n=settings.samples,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=max_tokens,
            seed=seed,
        )
        sampled = await _generate(pool, f"eval/{name}/samples", prompts, sampling)
    return summarize(name, prompts, greedy, sampled)


async def _generate(pool: RolloutPool, label: str, prompts: Sequence[Prompt], sampling: Sampling) -> list[RolloutGroup]:
    calls = (pool.generate(f"{label}/{i}", prompt, sampling) for i, prompt in enumerate(prompts))
    return list(await asyncio.gather(*calls))


def summarize(
    name: str,
    prompts: Sequence[Prompt],
    greedy: Sequence[RolloutGroup] | None,
    sampled: Sequence[RolloutGroup] | None,
) -> EvalResult:
    """Groups of one set, in the order of `prompts`, to figures. At least one way of decoding must be given."""
    shown = greedy or sampled
    assert shown is not None
    completions = [completion for group in shown for completion in group.completions]
    return EvalResult(
        set=name,
        problems=len(prompts),
        greedy=_mean([_share_right(group) for group in greedy]) if greedy else None,
        pass_at_1=_mean([_share_right(group) for group in sampled]) if sampled else None,
        cons_at_k=_mean([_majority_right(group) for group in sampled]) if sampled else None,
        k=len(sampled[0].completions) if sampled else 0,
        format=_mean([format_reward(completion.text) for completion in completions]),
        length_mean=_mean([float(len(completion.token_ids)) for completion in completions]),
        samples=tuple(
            {
                "prompt": group.prompt.text,
                "answer": group.prompt.answer,
                "completion": group.completions[0].text,
                "correct": accuracy_reward(group.completions[0].text, group.prompt.answer) == 1.0,
            }
            for group in shown[:NUM_SAMPLES_KEPT]
        ),
    )


def _share_right(group: RolloutGroup) -> float:
    return _mean([accuracy_reward(completion.text, group.prompt.answer) for completion in group.completions])


def _majority_right(group: RolloutGroup) -> float:
    """1.0 when the most frequent answer of the group is right. No answer is no vote."""
    votes: Counter[Hashable] = Counter()
    text_of: dict[Hashable, str] = {}
    for completion in group.completions:
        vote = vote_of(completion.text)
        if vote is not None:
            votes[vote] += 1
            text_of.setdefault(vote, completion.text)
    if not votes:
        return 0.0
    winner = max(votes, key=lambda vote: votes[vote])
    return accuracy_reward(text_of[winner], group.prompt.answer)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
