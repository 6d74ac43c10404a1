"""For all tests."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers have the cores between them: with a thread a core each, torch would mostly wait for itself.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import rollout.ray_defaults  # noqa: F401  # before anything imports Ray
