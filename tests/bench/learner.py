"""Speed and memory of a training step beside a padded `transformers` loop and TRL's trainer, on the same completions.

    python -m tests.bench.learner [--trl PYTHON] [--vocab 128 150000] [--rows 32 8] [--cases padded learner …] [--steps 3]

Each case runs in a process of its own. A step is forward, backward and AdamW over 128 completions of 16 prompts (lengths:
tests/bench/workload.py). Speed: completion tokens over the seconds of the fastest step after one that warms up; of a machine
that is shared, the fastest says most. Memory: the peak of the resident set during those steps (VmHWM, set back through
/proc/self/clear_refs) over what is resident before them, when weights and optimizer state are there. So it counts
activations, logits, gradients that come and go and whatever a library needs for its work, as the kernel sees it and not by
any allocator's own account.

Cases of the learner, beside `learner` itself: `-bf16`; `-passive`, threads that sleep while they wait; `-spin`, threads
that look for work for a moment before they sleep, as the services set it (rollout/actors.py: compute_environment); `-bound`,
each thread on a core of its own; `-1`, a single thread; `-compiled`, feed-forward layers and norms through `torch.compile`;
`-ckpt`, activations computed anew; `-silent`, two thirds of the groups without a signal, all of it computed; `-skips`, the same
work with what has no gradient left out, as a run does it without a KL in the loss.

`padded` and `trl` compute micro-batches of `--rows` completions, each padded to the longest of the batch.
PYTHON: an interpreter with trl 1.16 (`pip install trl==1.16.0` in an environment of its own; not a dependency).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.memory import resident_kilobytes, restart_peak

THREADS = 2


def measure(step: Callable[[], object], steps: int) -> dict[str, float]:
    """Seconds of the fastest step after one that warms up, and the bytes by which they raise the resident set."""
    step()
    restart_peak()
    before, seconds = resident_kilobytes(), []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return {"seconds": min(seconds), "bytes": 1024 * (resident_kilobytes(peak=True) - before)}


def run_padded(folder: str, vocab: int, prompts: int, rows: int, steps: int, dtype: str) -> dict[str, float]:
    """What one writes first: a padded batch, the logits of every position, log_softmax, gather."""
    import torch
    from transformers import AutoModelForCausalLM

    from learner.losses.policy import token_ratio
    from tests.bench.workload import draw, padded

    torch.set_num_threads(THREADS)
    work = draw(vocab, prompts)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    total = len(work.completions)
    micro_batches = []
    for first in range(0, total, rows):
        part = range(first, min(first + rows, total))
        arrays = {name: torch.from_numpy(array) for name, array in padded(work, part).items()}
        micro_batches.append((arrays, torch.from_numpy(work.advantages[part.start : part.stop])))

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        for arrays, advantages in micro_batches:
            token_ids, mask = arrays["token_ids"], arrays["completion_mask"]
            logits = model(token_ids, attention_mask=arrays["attention_mask"], use_cache=False).logits
            kept = mask.shape[1]
            logprobs = torch.log_softmax(logits[:, -kept - 1 : -1].float(), -1)
            logprobs = logprobs.gather(-1, token_ids[:, -kept:, None])[..., 0]
            ratio = token_ratio(logprobs, logprobs.detach())
            per_sequence = (ratio * advantages[:, None] * mask).sum(1) / mask.sum(1)
            (-per_sequence.sum() / total).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return measure(step, steps)


def run_learner(
    folder: str,
    vocab: int,
    prompts: int,
    rows: int,
    steps: int,
    dtype: str,
    threads: int = THREADS,
    compiled: bool = False,
    silent: bool = False,
    skips: bool = False,
    **changes: object,
) -> dict[str, float]:
    """One rank of the learner as the service opens it: DeepSpeed stage 0 unless `changes` say otherwise."""
    from learner.batch import TrainingSequence, make_batch
    from learner.rank import LearnerRank
    from learner.rendezvous import Rendezvous
    from tests.bench.workload import draw
    from tests.learner.specs import learner_spec

    work = draw(vocab, prompts)
    rank = LearnerRank(0, 1, Rendezvous("127.0.0.1", _free_port()), threads, 60)
    rank.open(learner_spec(folder, dtype=dtype, lr=1e-6, logit_chunk_tokens=1024, **changes))
    if compiled:
        for layer in rank.model.module.model.base_model.layers:
            for part in (layer.mlp, layer.input_layernorm, layer.post_attention_layernorm):
                part.compile(dynamic=True)
    sequences = [
        TrainingSequence(
            token_ids=np.concatenate([work.prompts[row // work.group_size], completion]),
            first_target=len(work.prompts[row // work.group_size]),
            advantage=0.0 if silent and row // work.group_size % 3 else float(work.advantages[row]),
            rollout_logprobs=work.logprobs[row],
        )
        for row, completion in enumerate(work.completions)
    ]
    cut: dict[str, Any] = {"length_norm": "sequence", "constant_length": 256, "temperature": 1.0, "seed": 0}
    cut |= {"ranks": 1, "mini_batches": 1, "micro_batch_tokens": 2048, "only_signal": skips}

    def step() -> None:
        rank.train(make_batch(sequences, **cut), "grpo")

    return measure(step, steps)


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Case:
    function: Callable[..., dict[str, float]]
    settings: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)


def _learner(dtype: str = "float32", environment: Mapping[str, str] | None = None, **settings: Any) -> Case:
    return Case(run_learner, {"dtype": dtype, **settings}, environment or {})


_BOUND = {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}
CASES = {
    "padded": Case(run_padded, {"dtype": "float32"}),
    "padded-bf16": Case(run_padded, {"dtype": "bfloat16"}),
    "learner": _learner(),
    "learner-bf16": _learner("bfloat16"),
    "learner-passive": _learner(environment={"OMP_WAIT_POLICY": "passive"}),
    "learner-spin": _learner(environment={"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "2000"}),
    "learner-bound": _learner(environment=_BOUND),
    "learner-1": _learner(environment={"OMP_NUM_THREADS": "1"}, threads=1),
    "learner-compiled": _learner(compiled=True),
    "learner-bf16-compiled": _learner("bfloat16", compiled=True),
    "learner-ckpt": _learner(activation_checkpointing=True),
    "learner-silent": _learner(silent=True),
    "learner-skips": _learner(silent=True, skips=True),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--trl", default="")
    arguments.add_argument("--vocab", type=int, nargs="+", default=[128, 150_000])
    arguments.add_argument("--cases", nargs="+", choices=CASES, default=["padded", "learner", "learner-bf16"])
    arguments.add_argument(
        "--rows", type=int, nargs="+", default=[32, 8], help="of a padded micro-batch, by vocabulary"
    )
    arguments.add_argument("--prompts", type=int, default=16, help="fewer where a step takes minutes")
    arguments.add_argument("--steps", type=int, default=3)
    arguments.add_argument("--child", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        name, folder = given.child
        case, size = CASES[name], (*given.vocab, given.prompts, *given.rows, given.steps)
        print(json.dumps(case.function(folder, *size, **case.settings)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for vocab, rows in zip(given.vocab, given.rows, strict=True):
            size = {"vocab": vocab, "prompts": given.prompts, "rows": rows, "steps": given.steps}
            compare(Path(folder) / str(vocab), size, given.cases, given.trl)


def compare(folder: Path, size: dict[str, int], cases: list[str], trl: str) -> None:
    from tests.bench.workload import build_model, draw

    build_model(size["vocab"], folder)
    work = draw(size["vocab"], size["prompts"])
    print(f"vocabulary {size['vocab']:,}: {len(work.completions)} completions, {work.num_targets:,} completion tokens")
    runs = [("trl", trl, "tests.bench.trl_step")] if trl else []
    runs += [(case, sys.executable, "tests.bench.learner") for case in cases]
    found: dict[str, dict[str, float]] = {}
    for case, python, module in runs:
        figures = found[case] = _child(python, module, case, folder, size)
        rate = work.num_targets / figures["seconds"]
        line = f"  {case:22} {figures['seconds']:8.2f} s  {rate:8,.0f} tokens/s  {figures['bytes'] / 2**20:8,.0f} MiB"
        for other in ("padded", "trl"):
            if other in found and case.startswith("learner"):
                times, part = found[other]["seconds"] / figures["seconds"], figures["bytes"] / found[other]["bytes"]
                line += f"   {times:5.2f} × {other}, {100 * part:.0f} % of its memory"
        print(line, flush=True)


def _child(python: str, module: str, case: str, folder: Path, size: dict[str, int]) -> dict[str, float]:
    environment = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(THREADS)}
    environment |= CASES[case].environment if case in CASES else {}
    options = [part for name, value in size.items() for part in (f"--{name}", str(value))]
    done = subprocess.run(
        [python, "-m", module, "--child", case, str(folder), *options],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    main()
