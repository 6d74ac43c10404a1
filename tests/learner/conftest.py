"""One learner rank for all tests that need one: DeepSpeed's process group cannot be made twice in a process."""

import os
import socket
from collections.abc import Iterator

import pytest

from learner.rank import LearnerRank


@pytest.fixture(scope="session")
def rank() -> Iterator[LearnerRank]:
    """The only rank of a learner, over gloo."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rank = LearnerRank(0, 1, "127.0.0.1", port, threads=1, timeout_s=60)
    yield rank
    rank.close()
