"""`track` and `[tracking]`: experiment trackers that a run is sent to, beside its own files."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from orchestrator.config.sections.base import Section

TrackerName = Literal["wandb", "mlflow", "trackio"]
LIBRARIES: Mapping[TrackerName, str] = {"wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
"""Tracker → the module that it is reached by; the extra of pyproject.toml is called as the tracker."""


def _once(names: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"{', '.join(names)}: name every tracker once")
    return names


def _without_password(uri: str) -> str:
    if re.search(r"://[^/@\s]*:[^/@\s]*@", uri):
        raise ValueError(
            "holds a password, which the run's folder would keep; leave it out, and set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD"
        )
    return uri


Trackers = Annotated[tuple[TrackerName, ...], AfterValidator(_once)]


class TrackingSection(Section):
    project: str = ""
    """Project of W&B and Trackio, experiment of MLflow; empty: the name of the recipe."""
    run: str = ""
    """Name of the run at the trackers; empty: the name of its folder."""
    entity: str = ""
    """User or team of W&B; empty: the default of whoever is logged in."""
    mlflow_uri: Annotated[str, AfterValidator(_without_password)] = ""
    """Place of MLflow's runs, such as `http://HOST:5000` or `sqlite:////data/mlflow.db`; empty: MLflow's own choice
    (`MLFLOW_TRACKING_URI`)."""
    trackio_space: str = ""
    """Space of the Hugging Face hub that Trackio writes to, `OWNER/NAME`; empty: its files on this machine."""
    samples: Annotated[int, Field(ge=0)] = 8
    """Rows of a table of samples; 0: no text of rows or models is sent."""
    samples_every: Annotated[int, Field(ge=1)] = 10
    """Batches between two tables of a stage's samples; every evaluation has one."""
    wait_s: Annotated[float, Field(gt=0, le=3600)] = 60
    """Longest wait at the end of a run for what trackers have not got yet, in seconds; the next start sends the rest."""
