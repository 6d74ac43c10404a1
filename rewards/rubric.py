"""A rubric: weighted reward functions that score every completion of a group.

A reward function takes the prompt and one completion and returns a float. Those that ship are in `BUILTIN`; a user's own
is named `path/to/file.py:function` or `package.module:function` and is trusted code of the user's.
"""

import importlib
import importlib.util
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rewards.format_tags import format_reward
from rewards.math_answer import accuracy_reward
from rewards.types import Score, ScoredGroup
from rollout.errors import InputError
from rollout.types import Completion, Prompt, RolloutGroup

RewardFunction = Callable[[Prompt, Completion], float]

BUILTIN: dict[str, RewardFunction] = {
    "accuracy": lambda prompt, completion: accuracy_reward(completion.text, prompt.answer),
    "format": lambda prompt, completion: format_reward(completion.text),
}


class Rubric:
    """The reward of a completion is the weighted sum of its functions' values."""

    def __init__(self, name: str, weights: Mapping[str, float]) -> None:
        """Raises InputError when a reward function does not exist."""
        self.name = name
        self._parts = [(part, weight, resolve(part)) for part, weight in weights.items()]

    def score(self, prompt: Prompt, completion: Completion) -> Score:
        """A reward function that raises, or returns what is not a finite number, gives status `error`, never a value."""
        began = time.perf_counter()
        breakdown: dict[str, float] = {}
        error = ""
        for part, _, function in self._parts:
            # The one boundary where a reward function may fail: it is recorded with its name, and never scores 0.
            try:
                value = float(function(prompt, completion))
            except Exception as problem:  # noqa: BLE001
                error = f"{part}: {type(problem).__name__}: {problem}"
                break
            if not math.isfinite(value):
                error = f"{part}: returned {value}"
                break
            breakdown[part] = value
        total = 0.0 if error else sum(weight * breakdown[part] for part, weight, _ in self._parts)
        return Score(
            value=total,
            status="error" if error else "ok",
            breakdown=breakdown,
            seconds=time.perf_counter() - began,
            error=error,
        )


def score_group(rubric: Rubric, group: RolloutGroup) -> tuple[ScoredGroup, tuple[str, ...]]:
    """The group without the completions that could not be scored, and why they could not."""
    began = time.perf_counter()
    scores = [rubric.score(group.prompt, completion) for completion in group.completions]
    kept = [(c, s) for c, s in zip(group.completions, scores, strict=True) if s.status != "error"]
    scored = ScoredGroup(
        group=group,
        completions=tuple(completion for completion, _ in kept),
        scores=tuple(score for _, score in kept),
        num_errors=len(scores) - len(kept),
        seconds=time.perf_counter() - began,
    )
    return scored, tuple(score.error for score in scores if score.status == "error")


def resolve(name: str) -> RewardFunction:
    """The reward function of that name.

    Raises:
        InputError: no such built-in, file, module or function, or the user's file does not import.
    """
    if name in BUILTIN:
        return BUILTIN[name]
    origin, colon, attribute = name.rpartition(":")
    if not colon:
        raise InputError(
            f"unknown reward function {name!r}; built in: {', '.join(BUILTIN)}; your own: path/to/file.py:function"
        )
    try:
        module = _load_file(Path(origin)) if origin.endswith(".py") else importlib.import_module(origin)
    except Exception as problem:
        raise InputError(f"reward function {name!r}: {origin} does not import: {problem}") from problem
    function = getattr(module, attribute, None)
    if not callable(function):
        raise InputError(f"reward function {name!r}: {origin} has no function {attribute!r}")
    checked: RewardFunction = function
    return checked


def _load_file(path: Path):  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location(f"rayzero_reward_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
