"""`[cluster]`: the Ray cluster of the whole recipe."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.sections.base import Names, Section
from rollout.errors import InputError
from rollout.storage.uri import check_uri

SET_BY_RAY = ("CUDA_VISIBLE_DEVICES",)
"""Variables that say what an actor was given."""
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_KEY")
"""Variables by which a storage is opened, and that nobody else may read."""


class ClusterSection(Section):
    address: str = ""
    """Ray cluster to join: `auto`, `HOST:PORT` or `ray://HOST:PORT`; empty: a private one in this process."""
    dashboard_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of the private cluster's dashboard, on loopback; 0: no dashboard."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port at which the private cluster gives its metrics as Prometheus text; 0: a free port."""
    env: Annotated[dict[str, str | int | float], Names("anything")] = {}
    """Environment variables of every actor, such as `{ NCCL_SOCKET_IFNAME = "eth0", HF_HOME = "/data/hf" }`."""
    storage: str = ""
    """Folder of a storage that all hosts reach, such as `s3://bucket/runs`: checkpoints, exports and the other files of the run go to
    a folder of the run's name in it, and the run's own folder need not be shared. Empty: all is in the run's folder."""
    storage_cache: str = ""
    """Folder of each host's own disk for copies from the storage and for files on their way there; empty: `~/.cache/rayzero/storage`."""
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
    def _storage(self) -> Self:
        if self.storage:
            try:
                check_uri(self.storage)
            except InputError as problem:
                raise ValueError(f"storage: {problem}") from None
        if self.storage_cache and not self.storage_cache.startswith(("/", "~")):
            raise ValueError(f"storage_cache = {self.storage_cache!r}: is of every host; write an absolute path")
        if secret := next((name for name in self.env if name in SECRETS), None):
            raise ValueError(
                f"env.{secret}: would be written to the files of the run; set it on the hosts, or give it with "
                f"`rayzero submit --env {secret}`"
            )
        return self

    @model_validator(mode="after")
    def _env(self) -> Self:
        for name in self.env:
            if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"env.{name}: a variable is called by letters, digits and _, and begins with no digit")
            if name in SET_BY_RAY:
                raise ValueError(f"env.{name} = {self.env[name]!r}: Ray sets it for every actor; leave it out")
        return self
