"""Lets a host without GPUs run what is written for NCCL. Python imports this at its start wherever this folder is on PYTHONPATH,
so the actors of a test have it, and so have the worker processes that vLLM starts from them.

It waits for vLLM's packed broadcast to be imported, and then puts stand-ins in the place of NCCL and of streams.
"""

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

FOLDER = "vllm.distributed.weight_transfer"
MODULES = tuple(f"{FOLDER}.{name}" for name in ("base", "packed_tensor", "nccl_common", "nccl_engine"))
"""What is taken from the vLLM that GPU hosts install, where its source is there."""
SOURCE = os.environ.get("RAYZERO_TESTS_GPU_VLLM", "")
"""A folder with that source; empty: the installed vLLM's own modules serve."""


class Finder:
    """Stands first among Python's finders."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name == f"{FOLDER}.packed_tensor":
            import stand_ins

            stand_ins.install()
        if SOURCE and name in MODULES:
            return importlib.util.spec_from_file_location(name, Path(SOURCE, *name.split(".")).with_suffix(".py"))
        return None


sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
