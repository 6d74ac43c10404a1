"""One rank in this process and one engine beside it, which take turns on one card as they do in a run."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from learner.audit import LogprobGap, logprob_gaps
from learner.batch import TrainingBatch, TrainingSequence, make_batch
from learner.rank import LearnerRank
from rollout.engine import EngineSpec, VllmEngine
from rollout.types import Completion, Prompt, Sampling
from rollout.weights.manifest import LoadReport
from tests.bench.gpu_parts.bench import Bench
from tests.bench.gpu_parts.models import SHAPES, model_folder
from tests.bench.gpu_parts.training import open_rank

T = TypeVar("T")
HELD_GB = 14
"""What the rank keeps on the card between steps: 0.5B parameters of 18 bytes, its contexts, and room."""


@dataclass
class Pair:
    bench: Bench
    engine: VllmEngine
    rank: LearnerRank
    thread: ThreadPoolExecutor
    """Where the rank works, as it would in its actor."""

    async def of_rank(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.thread, lambda: call(*arguments))

    async def publish(self, version: int) -> tuple[dict[str, float], LoadReport]:
        """Seconds of the parts of one publish, and what the engine says."""
        began = time.perf_counter()
        manifest = await self.of_rank(self.rank.stage_weights, version)
        staged = time.perf_counter()
        assert manifest is not None
        report = await self.engine.load(manifest)
        loaded = time.perf_counter()
        await self.of_rank(self.rank.release_weights, manifest)
        times = {"stage_s": staged - began, "load_s": loaded - staged, "gb": manifest.num_bytes / 1e9}
        return times | {"release_s": time.perf_counter() - loaded}, report

    async def sample(self, prompts: int, group: int, tokens: int, seed: int) -> list[list[Completion]]:
        async def one(number: int) -> list[Completion]:
            prompt = self.prompt(seed, number)
            sampling = Sampling(n=group, max_tokens=tokens, seed=1000 * seed + number)
            found: dict[int, Completion] = {}
            async for finished in self.engine.generate(prompt.prompt_id, prompt, sampling):
                found |= dict(finished)
            return [found[i] for i in range(group)]

        return await asyncio.gather(*(one(number) for number in range(prompts)))

    def prompt(self, seed: int, number: int) -> Prompt:
        vocab = SHAPES["toy" if self.bench.tiny else "0.5b"].vocab
        ids = np.random.default_rng([seed, number]).integers(2, vocab, 48).tolist()
        return Prompt(
            prompt_id=f"pair/{seed}/{number}",
            source="bench",
            rubric="default",
            text="",
            token_ids=tuple(ids),
            answer="",
        )

    def batch(self, groups: list[list[Completion]], seed: int) -> TrainingBatch:
        """Random advantages: what they are does not matter to time and to rounding."""
        rng = np.random.default_rng(seed)
        rows = [
            TrainingSequence(
                token_ids=np.concatenate([self.prompt(seed, number).token_ids, each.token_ids]).astype(np.int64),
                first_target=48,
                advantage=float(rng.normal()),
                rollout_logprobs=each.rollout_logprobs,
            )
            for number, group in enumerate(groups)
            for each in group
        ]
        return make_batch(
            rows,
            ranks=1,
            mini_batches=1,
            micro_batch_tokens=16_384,
            length_norm="sequence",
            constant_length=512,
            temperature=1.0,
            seed=0,
        )

    async def gap(self, groups: list[list[Completion]], seed: int) -> LogprobGap:
        """How far the rank's logprobs are from those that the engine sampled with."""
        packs = await self.of_rank(self.rank.logprobs, self.batch(groups, seed))
        return logprob_gaps(packs, [0] * sum(len(group) for group in groups))[0]

    def memory(self, label: str) -> None:
        """Record what is used of the card by all processes."""
        if self.bench.device == "cuda":
            import torch

            free, total = torch.cuda.mem_get_info()
            table = self.bench.figures.get("card_used_gb", {})
            self.bench.record(card_used_gb=table | {label: round((total - free) / 1e9, 2)})

    async def close(self) -> None:
        await self.engine.close()
        self.thread.shutdown(wait=False)


async def start_pair(bench: Bench, **changes: Any) -> Pair:
    """Engine first, which then sleeps; then the rank opens the same model."""
    folder = model_folder(bench, "0.5b")
    began = time.monotonic()
    engine = await VllmEngine.start(0, engine_spec(bench), folder)
    bench.record(engine_start_s=round(time.monotonic() - began, 1))
    if bench.device == "cuda":
        await engine.sleep()
    thread = ThreadPoolExecutor(1)
    backend = engine_spec(bench).backend
    opened = asyncio.get_running_loop().run_in_executor(
        thread, lambda: open_rank(bench, "0.5b", backend=backend, **changes)
    )
    return Pair(bench, engine, await opened, thread)


def engine_spec(bench: Bench) -> EngineSpec:
    """As a run on this device would have it. Begins with the tests' own, so that a new field needs no line here."""
    from tests.engine.conftest import engine_spec as tests_own

    cuda = bench.device == "cuda"
    return replace(
        tests_own(),
        dtype="bfloat16",
        max_tokens=1024,
        max_sequences=256,
        gpu_memory=0.7,
        eager=not cuda,
        backend="ipc" if cuda else "shm",
        device=bench.device,
        sleeps=cuda,
        held_bytes=HELD_GB << 30 if cuda else 0,
    )


def told(gap: LogprobGap) -> dict[str, float]:
    return {"mean": gap.mean, "p99": gap.high, "max": gap.largest, "tokens": gap.tokens}
