"""Which class is which tracker. Libraries are imported here, when one is asked for, and nowhere else."""

from collections.abc import Callable, Mapping

from orchestrator.config.sections.tracking import TrackerName
from orchestrator.tracking.tracker import Tracker


def tracker_of(name: TrackerName) -> Tracker:
    """The tracker of a name, whose library is imported. Raises ImportError."""
    makers: Mapping[TrackerName, Callable[[], Tracker]] = {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}
    return makers[name]()


def _wandb() -> Tracker:
    from orchestrator.tracking.wandb_run import WandbRun

    return WandbRun()


def _mlflow() -> Tracker:
    from orchestrator.tracking.mlflow_run import MlflowRun

    return MlflowRun()


def _trackio() -> Tracker:
    from orchestrator.tracking.trackio_run import TrackioRun

    return TrackioRun()
