"""Whether the trackers that a recipe asks for are installed."""

import sys
from importlib.machinery import PathFinder

from orchestrator.config.recipe import Recipe
from orchestrator.config.sections.tracking import LIBRARIES, TrackerName


def is_installed(name: TrackerName) -> bool:
    """Whether a tracker's library is here; nothing of it is imported. A folder of its name, as W&B leaves one, is no library."""
    found = PathFinder.find_spec(LIBRARIES[name], [path for path in sys.path if path])
    return found is not None and found.origin is not None


def check_trackers(recipe: Recipe) -> list[str]:
    """A note for each tracker that is not installed: a run goes on without it."""
    return [
        f"track: {name} is not installed, so nothing is sent to it: `pip install -e '.[{name}]'` in RayZero's folder"
        for name in recipe.track
        if not is_installed(name)
    ]
