"""One learner rank in this process, batches of random tokens for it, and what a step of it takes."""

import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learner.batch import TrainingBatch, TrainingSequence, make_batch
from learner.rank import LearnerRank
from learner.rendezvous import Rendezvous
from tests.bench.gpu_parts.bench import Bench
from tests.bench.gpu_parts.models import SHAPES, model_folder
from tests.learner.specs import learner_spec

KINDS = {
    "matrix": ("gemm", "nvjet", "cutlass", "xmma", "gemv", "::mm", "addmm"),
    "attention": ("flash", "fmha", "attention"),
    "copy": ("memcpy", "memset", "copy_kernel"),
    "optimizer": ("adam", "multi_tensor"),
}
"""Kind of a kernel → what its name holds."""


def open_rank(bench: Bench, model: str, **changes: Any) -> LearnerRank:
    """A rank alone, with a model in it, in the environment that the service gives its ranks."""
    from rollout.actors import compute_environment

    threads = len(os.sched_getaffinity(0))
    for name, value in compute_environment(bench.device, threads).items():
        os.environ.setdefault(name, value)
    folder = model_folder(bench, model)
    began = time.monotonic()
    rank = LearnerRank(0, 1, Rendezvous("127.0.0.1", _free_port()), threads, 120, device=bench.device)
    spec = learner_spec(folder, dtype="bfloat16", lr=1e-6, logit_chunk_tokens=1024, **changes)
    parameters = rank.open(spec)
    assert rank.device.type == bench.device, f"the rank computes on the {rank.device.type}"
    bench.record(parameters=parameters, open_s=round(time.monotonic() - began, 1))
    if bench.device == "cuda":
        bench.record(
            after_open_gb=torch.cuda.memory_allocated() / 1e9, peak_open_gb=torch.cuda.max_memory_allocated() / 1e9
        )
    return rank


def random_batch(
    bench: Bench, model: str, *, prompts: int, group: int, prompt_tokens: int, completion_tokens: int, pack_tokens: int
) -> TrainingBatch:
    """Groups of random tokens, all completions of one length, one optimizer step."""
    rng = np.random.default_rng(0)
    vocab = SHAPES["toy" if bench.tiny else model].vocab
    sequences = []
    for _ in range(prompts):
        prompt = rng.integers(2, vocab, prompt_tokens)
        sequences += [
            TrainingSequence(
                token_ids=np.concatenate([prompt, rng.integers(2, vocab, completion_tokens)]),
                first_target=prompt_tokens,
                advantage=float(rng.normal()),
                rollout_logprobs=np.full(completion_tokens, -np.log(vocab), np.float32),
            )
            for _ in range(group)
        ]
    return make_batch(
        sequences,
        ranks=1,
        mini_batches=1,
        micro_batch_tokens=pack_tokens,
        length_norm="sequence",
        constant_length=completion_tokens,
        temperature=1.0,
        seed=0,
    )


def measure(bench: Bench, rank: LearnerRank, batch: TrainingBatch, steps: int) -> dict[str, float]:
    """Figures of the fastest GRPO step after one that warms up. Tokens: those that pass through the model, a shared prompt once."""
    packs = [pack for mini in batch.packs for ranks in mini for pack in ranks]
    tokens = sum(len(pack.token_ids) for pack in packs)
    warm_up, _ = _step(bench, rank, batch)
    timed = [_step(bench, rank, batch) for _ in range(steps)]
    seconds, stats = min(timed, key=lambda pair: pair[0])
    rate = stats.model_flops / seconds
    figures: dict[str, float] = {
        "packs": len(packs),
        "pack_tokens": max(len(pack.token_ids) for pack in packs),
        "step_s": seconds,
        "slowest_step_s": max(each for each, _ in timed),
        "first_step_s": warm_up,
        "tokens_per_s": tokens / seconds,
        "targets_per_s": batch.num_targets / seconds,
        "model_tflops": rate / 1e12,
        "mfu_percent": 100 * rate / stats.peak_flops,
        "own_matrix_tflops": stats.peak_flops / 1e12,
        "peak_gb": stats.memory_peak / 1e9,
        "grad_norm": float(stats.grad_norm),
    }
    if matrix := bench.earlier("environment").get("matrix_tflops"):
        figures["mfu_percent_of_environment"] = 100 * rate / 1e12 / matrix
    if bench.device == "cuda":
        figures["reserved_gb"] = torch.cuda.max_memory_reserved() / 1e9
    assert np.isfinite(figures["grad_norm"]), "the gradient is not finite"
    return figures


def profile(bench: Bench, rank: LearnerRank, batch: TrainingBatch, title: str, file: Path) -> dict[str, float]:
    """Append the 25 kernels that take longest in one step to a file; shares of kinds of kernels in all of their time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    cuda = bench.device == "cuda"
    with record(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        seconds, _ = _step(bench, rank, batch)
    averages = profiler.key_averages()
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    times = {event.key: float(getattr(event, key)) for event in averages}
    rows = sorted(averages, key=lambda event: -times[event.key])[:25]
    total = sum(times.values()) or 1.0
    with open(file, "a") as sink:
        sink.write(f"{title}: one step of {1e3 * seconds:.1f} ms, {total / 1e3:.1f} ms in kernels\n")
        sink.write(f"{'ms':>10} {'share':>7} {'calls':>7}  kernel\n")
        for event in rows:
            part = times[event.key]
            sink.write(f"{part / 1e3:10.2f} {100 * part / total:6.1f}% {event.count:7}  {event.key[:160]}\n")
        sink.write("\n")
    shares = dict.fromkeys([*KINDS, "other"], 0.0)
    for name, part in times.items():
        kind = next((kind for kind, words in KINDS.items() if any(word in name.lower() for word in words)), "other")
        shares[kind] += 100 * part / total
    return {"kernels_ms": total / 1e3, "wall_ms": 1e3 * seconds, **{f"{kind}_percent": shares[kind] for kind in shares}}


def _step(bench: Bench, rank: LearnerRank, batch: TrainingBatch) -> tuple[float, Any]:
    """(seconds, the rank's figures) of one batch."""
    _wait(bench)
    began = time.perf_counter()
    stats = rank.train(batch, "grpo")
    _wait(bench)
    return time.perf_counter() - began, stats


def _wait(bench: Bench) -> None:
    if bench.device == "cuda":
        torch.cuda.synchronize()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
