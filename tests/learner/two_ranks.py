"""Runs a test's own program on two ranks over gloo, each a process."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

BEGIN = """
import json, os, sys
import torch
from learner.rank import LearnerRank
from learner.rendezvous import Rendezvous
from tests.learner.specs import build_spec, learner_spec
number, ranks, port, given = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
rank = LearnerRank(number, ranks, Rendezvous("127.0.0.1", port), threads=1, timeout_s=60)
def answer(value):
    print("ANSWER", json.dumps(value), flush=True)
    torch.distributed.barrier()
    os._exit(0)  # threads of libraries are not waited for
"""
"""Known to a program: `number` of its rank, `rank`, what it was `given`, and `answer`, which ends it."""


def on_ranks(program: str, given: Any = None, ranks: int = 2) -> list[Any]:
    """What each rank answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    with ExitStack() as open_now:
        # Files: a pipe that nobody reads yet would hold one rank back, and all wait for it.
        files = [[open_now.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)] for _ in range(ranks)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", BEGIN + program, str(number), str(ranks), str(port), json.dumps(given)],
                env=environment,
                stdout=output,
                stderr=errors,
            )
            for number, (output, errors) in enumerate(files)
        ]
        try:
            codes = [process.wait(timeout=150) for process in processes]
        finally:
            for process in processes:
                process.kill()
        for pair in files:
            for file in pair:
                file.seek(0)
        said = [(output.read(), errors.read()) for output, errors in files]
    answers = []
    for code, (output, errors) in zip(codes, said, strict=True):
        assert code == 0, errors[-3000:]
        line = next(line for line in output.splitlines() if line.startswith("ANSWER "))
        answers.append(json.loads(line.removeprefix("ANSWER ")))
    return answers
