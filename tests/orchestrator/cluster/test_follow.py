"""A log that is followed through lost connections: every line once, and the job's own end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cluster import jobs
from orchestrator.cluster.jobs import Follower
from rollout.errors import ServiceError

LOG = ("step 1\n", "step 2\n", "stép 3\n", "step 4\n")


class Client:
    """A log that grows by a line with every stream, each of which is cut in its own way until the last."""

    def __init__(self, *cuts: Callable[[], Any], end: str = "SUCCEEDED") -> None:
        self.cuts, self.end = list(cuts), end
        self.streams = 0
        self.lost = 0
        """Questions for the status that will find no connection."""

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        self.streams += 1
        last = not self.cuts
        for line in LOG if last else LOG[: min(self.streams, 3)]:
            yield line
        if not last:
            await self.cuts.pop(0)()

    def get_job_status(self, job: str) -> Any:
        if self.lost:
            self.lost -= 1
            raise ConnectionError("timed out")
        ended = not self.cuts
        return SimpleNamespace(value=self.end if ended else "RUNNING", is_terminal=lambda: ended)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SILENCE_S", 0.01)
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)


async def breaks() -> None:
    raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")


async def closes() -> None:
    """As a head does that is shut down in order."""


async def hangs() -> None:
    """As a link does that is cut: nothing ever comes."""
    await asyncio.sleep(60)


@pytest.mark.parametrize("cut", [breaks, closes, hangs])
@pytest.mark.parametrize("end", ["SUCCEEDED", "FAILED", "STOPPED"])
def test_every_line_is_printed_once_whatever_cuts_the_log(
    cut: Callable[[], Any], end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client(cut, cut, end=end)
    client.lost = 1 if cut is hangs else 0
    assert Follower(client, "j").follow() == end.lower()
    captured = capsys.readouterr()
    assert captured.out == "".join(LOG)
    assert ("connection lost" in captured.err) == (cut is not closes)


def test_a_cluster_that_does_not_come_back_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "RECONNECT_S", 0.2)
    client = Client(*[breaks] * 10**6)
    client.lost = 10**9

    async def nothing(job: str) -> AsyncIterator[str]:
        raise ConnectionError("Connection refused")
        yield ""

    client.tail_job_logs = nothing  # type: ignore[method-assign]
    with pytest.raises(ServiceError, match=r"no connection to job j for .* timed out"):
        Follower(client, "j").follow()


def test_a_job_that_the_cluster_forgot_is_told_at_once() -> None:
    async def gone() -> None:
        raise RuntimeError("Request failed with status code 404: Job j does not exist")

    with pytest.raises(ServiceError, match="does not know job j any more"):
        Follower(Client(gone), "j").follow()
