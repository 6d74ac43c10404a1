"""Settings of every test process, and the one learner rank of those that need one."""

import gc
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers have the cores between them: with a thread a core each, torch would mostly wait for itself.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import rollout.ray_defaults  # noqa: F401  # before anything imports Ray

if TYPE_CHECKING:
    from learner.rank import LearnerRank


# What collection imports is there to stay, so the collector neither looks for garbage among it while it grows nor passes
# over it while they run: a twentieth of the time of the fast tests.
gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # libraries tell of what is left of theirs at the end of the process


@pytest.fixture(scope="session")
def rank() -> Iterator["LearnerRank"]:
    """The only rank of a learner, over gloo: DeepSpeed's process group cannot be made twice in a process."""
    from learner.rank import LearnerRank
    from learner.rendezvous import Rendezvous

    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rank = LearnerRank(0, 1, Rendezvous("127.0.0.1", port), threads=1, timeout_s=60)
    yield rank
    rank.close()
