"""`[cluster]`: the Ray cluster of the whole recipe."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.sections.base import Names, Section

SET_BY_RAY = ("CUDA_VISIBLE_DEVICES",)
"""Variables that say what an actor was given."""


class ClusterSection(Section):
    address: str = ""
    """Ray cluster to join: `auto`, `HOST:PORT` or `ray://HOST:PORT`; empty: a private one in this process."""
    dashboard_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of the private cluster's dashboard, on loopback; 0: no dashboard."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port at which the private cluster gives its metrics as Prometheus text; 0: a free port."""
    env: Annotated[dict[str, str | int | float], Names("anything")] = {}
    """Environment variables of every actor, such as `{ NCCL_SOCKET_IFNAME = "eth0", HF_HOME = "/data/hf" }`."""
    wait_s: Annotated[float, Field(ge=0)] = 0
    """Longest wait, in seconds, for nodes that the cluster does not have yet and an autoscaler may bring; 0: what is not
    there is refused."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What engines and ranks compute on: `auto` is GPUs where the cluster has one when the run starts; `cuda` takes GPUs
    also where an autoscaler has yet to bring them (`cluster.wait_s`), and refuses a machine without; `cpu` leaves GPUs alone."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 300
    """Longest wait for actors and engines to start, in seconds, and, where no engine serves any more, for one to come back; `wait_s` is
    added to the latter."""

    @model_validator(mode="after")
    def _env(self) -> Self:
        for name in self.env:
            if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"env.{name}: a variable is called by letters, digits and _, and begins with no digit")
            if name in SET_BY_RAY:
                raise ValueError(f"env.{name} = {self.env[name]!r}: Ray sets it for every actor; leave it out")
        return self
