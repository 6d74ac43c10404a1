"""Completion tokens a second of our engine beside plain vLLM on the very same `AsyncLLM`. Aim: 95 %.

Both in one process and by turns, so that neither has the warmer cache, the better memory or other arguments:

    ours           `VllmEngine.generate`, every group to its `Completion`s
    plain          `AsyncLLM.generate` with what training needs at least: n of a prompt, the sampled tokens' log-probabilities
    plain, seeded  the same with a seed a request, which ours gives for reproducible groups
    plain, bare    without log-probabilities: what they cost

Random weights hardly ever end a completion by themselves (one token in 150,000); plain vLLM is told to ignore the end.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

import numpy as np

from rollout.engine import EngineSpec, VllmEngine
from rollout.types import Prompt, Sampling
from tests.bench.gpu_parts.bench import Bench
from tests.bench.gpu_parts.models import SHAPES, model_folder

AIM = 95.0
"""Percent of plain vLLM."""


@dataclass(frozen=True)
class Load:
    prompts: int
    group: int
    prompt_tokens: int
    completion_tokens: int
    vocab: int

    def prompt_ids(self, seed: int) -> list[list[int]]:
        """Prompts that no other round has, so that none finds its prefix in the cache."""
        rng = np.random.default_rng(seed)
        return [rng.integers(2, self.vocab, self.prompt_tokens).tolist() for _ in range(self.prompts)]


@dataclass
class Started:
    """What `AsyncLLM.from_engine_args` was called with, and what it gave."""

    arguments: list[Any] = field(default_factory=list)
    engines: list[Any] = field(default_factory=list)


def run(bench: Bench) -> None:
    asyncio.run(_run(bench))


async def _run(bench: Bench) -> None:
    load = Load(4, 2, 16, 24, SHAPES["toy"].vocab) if bench.tiny else Load(64, 8, 128, 512, SHAPES["0.5b"].vocab)
    folder = model_folder(bench, "0.5b")
    began = time.monotonic()
    with watched() as started:
        engine = await VllmEngine.start(0, engine_spec(bench, load), folder)
    (llm,) = started.engines
    try:
        bench.record(start_s=round(time.monotonic() - began, 1), arguments=settings(started.arguments[0]))
        await compare(bench, load, engine, llm)
    finally:
        await engine.close()


async def compare(bench: Bench, load: Load, engine: VllmEngine, llm: Any) -> None:
    ways: dict[str, Callable[[int], Awaitable[int]]] = {
        "ours": lambda seed: ours(engine, load, seed),
        "plain": lambda seed: plain(llm, load, seed),
        "plain, seeded": lambda seed: plain(llm, load, seed, seeded=True),
        "plain, bare": lambda seed: plain(llm, load, seed, logprobs=None),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    await ways["ours"](0)
    await ways["plain"](1)
    # Seconds of the longest turn so far: another is begun only if it ends in time.
    longest, seed = 0.0, 2
    for turn in range(3):
        for name, way in ways.items():
            if turn and (name == "plain, bare" or bench.seconds_left < 2 * longest + 10):
                continue
            began = time.perf_counter()
            tokens = await way(seed)
            seconds = time.perf_counter() - began
            longest, seed = max(longest, seconds), seed + 1
            rates[name].append(tokens / seconds)
            wanted = load.prompts * load.group * load.completion_tokens
            assert tokens > 0.9 * wanted, f"{name}: {tokens} tokens in place of {wanted}"
            best = {way: max(found) for way, found in rates.items() if found}
            bench.record(tokens_per_s=best, turns={way: len(found) for way, found in rates.items()})
    bench.record(
        ours_of_plain_percent=100 * best["ours"] / best["plain"],
        ours_of_seeded_percent=100 * best["ours"] / best["plain, seeded"],
        aim_percent=AIM,
    )


async def ours(engine: VllmEngine, load: Load, seed: int) -> int:
    """Completion tokens of one round."""

    async def group(number: int, ids: list[int]) -> int:
        prompt = Prompt(
            prompt_id=f"bench/{seed}/{number}",
            source="bench",
            rubric="default",
            text="",
            token_ids=tuple(ids),
            answer="",
        )
        sampling = Sampling(n=load.group, max_tokens=load.completion_tokens, seed=1000 * seed + load.group * number)
        tokens = 0
        async for finished in engine.generate(prompt.prompt_id, prompt, sampling):
            tokens += sum(len(completion.token_ids) for _, completion in finished)
        return tokens

    return sum(await asyncio.gather(*(group(number, ids) for number, ids in enumerate(load.prompt_ids(seed)))))


async def plain(llm: Any, load: Load, seed: int, *, seeded: bool = False, logprobs: int | None = 0) -> int:
    """Completion tokens of one round."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt
    from vllm.sampling_params import RequestOutputKind

    async def group(number: int, ids: list[int]) -> int:
        params = SamplingParams(
            n=load.group,
            temperature=1.0,
            max_tokens=load.completion_tokens,
            seed=1000 * seed + load.group * number if seeded else None,
            ignore_eos=True,
            logprobs=logprobs,
            flat_logprobs=logprobs is not None,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        tokens = 0
        async for output in llm.generate(TokensPrompt(prompt_token_ids=ids), params, f"plain/{seed}/{number}"):
            tokens += sum(len(part.token_ids) for part in output.outputs)
        return tokens

    return sum(await asyncio.gather(*(group(number, ids) for number, ids in enumerate(load.prompt_ids(seed)))))


@contextmanager
def watched() -> Iterator[Started]:
    """Notes the engines that are made: the comparison is to be with these very arguments, whatever they are by then."""
    from vllm.v1.engine.async_llm import AsyncLLM

    started, original = Started(), AsyncLLM.from_engine_args

    def from_engine_args(engine_args: Any, *arguments: Any, **named: Any) -> Any:
        started.arguments.append(engine_args)
        started.engines.append(original(engine_args, *arguments, **named))
        return started.engines[-1]

    AsyncLLM.from_engine_args = from_engine_args
    try:
        yield started
    finally:
        AsyncLLM.from_engine_args = original


def engine_spec(bench: Bench, load: Load) -> EngineSpec:
    """As a run on this device would have it. Begins with the tests' own, so that a new field needs no line here."""
    from tests.engine.conftest import engine_spec as tests_own

    cuda = bench.device == "cuda"
    return replace(
        tests_own(),
        dtype="bfloat16" if cuda else "float32",
        max_tokens=load.prompt_tokens + load.completion_tokens,
        max_sequences=load.prompts * load.group,
        gpu_memory=0.85,
        eager=not cuda,
        backend="nccl" if cuda else "shm",
        device=bench.device,
    )


def settings(arguments: Any) -> dict[str, str]:
    """The engine's arguments that differ from vLLM's plain defaults."""
    told = {}
    for each in fields(arguments):
        value = getattr(arguments, each.name, None)
        default = value if each.default is MISSING else each.default
        if each.name != "model" and value is not None and repr(value) != repr(default):
            told[each.name] = str(value)[:120]
    return told
