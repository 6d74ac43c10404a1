"""`[cluster]`: the Ray cluster of the whole recipe."""

from typing import Annotated

from pydantic import Field

from orchestrator.config.sections.base import Section


class ClusterSection(Section):
    address: str = ""
    """Ray cluster to join: `auto`, `HOST:PORT` or `ray://HOST:PORT`; empty: a private one in this process."""
    dashboard_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of the private cluster's dashboard, on loopback; 0: no dashboard."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port at which the private cluster gives its metrics as Prometheus text; 0: a free port."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 300
    """Longest wait for actors and engines to start, in seconds."""
