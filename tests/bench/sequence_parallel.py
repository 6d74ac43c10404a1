"""Memory and time of one long sequence that one rank passes alone, or 2 and 4 together; all on this machine, over gloo.

    python -m tests.bench.sequence_parallel [--tokens 4096] [--ranks 1 2 4]

A step is forward, backward and AdamW of an SFT update, ZeRO-3 with activations computed again, of a random model with 8 layers,
a hidden size of 512 and 8 heads (4 of keys). Memory: the largest peak of a rank's resident set during two steps over what was
resident before them. All ranks share the machine's cores, so seconds say what the exchange costs, not what more ranks bring.
"""

import argparse
import json
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learner.batch import TrainingSequence, make_batch
from learner.model.small import BuildSpec, build_model
from learner.rank import LearnerRank
from learner.rendezvous import Rendezvous
from tests.bench.memory import resident_kilobytes, restart_peak
from tests.learner.specs import learner_spec

STEPS = 2


def make_model(folder: Path, tokens: int) -> None:
    sizes: dict[str, Any] = {"layers": 8, "hidden": 512, "heads": 8, "kv_heads": 4, "intermediate": 1536}
    spec = BuildSpec(tokenizer="characters", vocab_size=0, tied=False, max_tokens=tokens, seed=1, **sizes)
    build_model(spec, iter(()), folder)


def work(index: int, ranks: int, port: int, folder: str, tokens: int) -> None:
    rank = LearnerRank(index, ranks, Rendezvous("127.0.0.1", port), threads=max(1, 2 // ranks), timeout_s=600)
    spec = learner_spec(
        f"{folder}/model", lr=1e-4, zero_stage=3, activation_checkpointing=True, sequence_parallel=ranks
    )
    rank.open(spec)
    sequence = TrainingSequence(token_ids=np.random.default_rng(0).integers(3, 90, size=tokens), first_target=8)
    cut: dict[str, Any] = {
        "mini_batches": 1,
        "micro_batch_tokens": tokens,
        "length_norm": "token",
        "constant_length": 1,
    }
    batch = make_batch([sequence], ranks=1, temperature=1.0, seed=0, **cut)
    rank.train(batch, "sft")
    restart_peak()
    before, began = resident_kilobytes(), time.perf_counter()
    for _ in range(STEPS):
        stats = rank.train(batch, "sft")
    found = {
        "seconds": (time.perf_counter() - began) / STEPS,
        "bytes": 1024 * (resident_kilobytes(peak=True) - before),
        "norm": stats.grad_norm,
    }
    (Path(folder) / f"{ranks} {index}.json").write_text(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    print("| ranks | seconds a step | MiB of a rank | gradient norm |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder) / "model", options.tokens)
        for ranks in options.ranks:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            torch.multiprocessing.spawn(work, (ranks, port, folder, options.tokens), nprocs=ranks)
            found = [json.loads((Path(folder) / f"{ranks} {index}.json").read_text()) for index in range(ranks)]
            most = max(one["bytes"] for one in found) / 2**20
            seconds = max(one["seconds"] for one in found)
            print(f"| {ranks} | {seconds:.1f} | {most:.0f} | {found[0]['norm']:.6f} |", flush=True)


if __name__ == "__main__":
    main()
