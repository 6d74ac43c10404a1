"""Jobs of a Ray cluster, through its dashboard's address: found by their run, followed, stopped.

A job is one of ours when its metadata names a run. Every request has a time limit. Ray is imported only when it is needed.
"""

import asyncio
import json
import logging
import os
import posixpath
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import rollout.ray_defaults  # noqa: F401

from rollout.errors import InputError, ServiceError

ANSWER_TIMEOUT_S = 5
"""Longest wait for the dashboard to say who it is."""
REQUEST_TIMEOUT_S = 60
"""Longest silence of the dashboard in one request."""
SILENCE_S = 10
"""Silence of a log after which the connection is looked at."""
QUIET_CHECKS = 30
"""Looks at a connection on which nothing comes, until the log is asked for anew: what lies between may have forgotten it."""
RECONNECT_S = 600
"""Longest time that a lost connection is tried again."""
STOP_WAIT_S = 30
"""Time that a job has to end in order when it is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunJob:
    """A job that trains a run."""

    job: str
    """Id of the job."""
    run: str
    """Folder of the run, on the cluster."""
    state: str
    """`pending`, `running`, `stopped`, `succeeded` or `failed`."""
    start: float
    """Unix time in seconds."""
    digest: str
    """Hash of what it was asked to do; equal for equal recipes."""

    @property
    def goes_on(self) -> bool:
        return self.state in ("pending", "running")


# --- The cluster


def probe(address: str) -> None:
    """Find out in seconds, and without Ray, whether a Ray dashboard answers. Raises InputError when none does."""
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=ANSWER_TIMEOUT_S) as answer:
            json.load(answer)["ray_version"]
    except urllib.error.HTTPError as error:
        # A cluster with tokens refuses a question without one. The client asks again with the token.
        if error.code not in (401, 403):
            raise InputError(f"--address {address}: HTTP {error.code}: that is not a Ray dashboard") from None
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        reason = getattr(reason, "strerror", None) or reason
        raise InputError(
            f"--address {address}: no answer ({reason})\n"
            "is the cluster up, and its dashboard reachable from here? `ray start --head` prints its address"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"--address {address}: answers, but is not a Ray dashboard") from None


def connect(address: str) -> Any:
    """A client of the cluster. Raises InputError, in a line or two, when it does not let us in."""
    probe(address)
    # These would silently ask another cluster than the address says.
    for variable in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(variable, None)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        """Ray's, which waits for ever for an answer where it is not told otherwise."""

        def _do_request(self, *args: Any, **options: Any) -> Any:
            return super()._do_request(*args, **{"timeout": REQUEST_TIMEOUT_S} | options)

    # Uploads and closed connections are no news; each of these modules sets a level of its own.
    for module in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{module}").setLevel(logging.WARNING)
    try:
        return Client(address)
    except AuthenticationError as error:
        raise InputError(_authentication_help(address, str(error))) from None
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"--address {address}: the cluster did not answer as one: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """What an error of Ray's says, without the page behind it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _authentication_help(address: str, message: str) -> str:
    """Ray's page of advice in two lines."""
    if "couldn't find an authentication token" in message:
        return (
            "no Ray token on this machine: put the cluster's into RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH or "
            "~/.ray/auth_token\na cluster without tokens: RAY_AUTH_MODE=disabled rayzero submit …"
        )
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return (
            f"--address {address}: the cluster asks for a token, and RAY_AUTH_MODE={os.environ.get('RAY_AUTH_MODE')} "
            "sends none\nunset RAY_AUTH_MODE"
        )
    return (
        f"--address {address}: the cluster refused this machine's Ray token\n"
        "take the cluster's: `ray get-auth-token` on its head node, then RAY_AUTH_TOKEN=… or ~/.ray/auth_token here"
    )


# --- Which


def run_jobs(client: Any) -> list[RunJob]:
    """Jobs of ours, the oldest first. Raises ServiceError when the cluster does not say."""
    try:
        listed = client.list_jobs()
    except (RuntimeError, OSError) as error:
        raise ServiceError(f"{client.get_address()}: does not list its jobs: {first_line(error)}") from None
    found = [
        RunJob(
            job=each.submission_id or "",
            run=each.metadata["run"],
            state=each.status.value.lower(),
            start=(each.start_time or 0) / 1000,
            digest=each.metadata.get("digest", ""),
        )
        for each in listed
        if each.submission_id and (each.metadata or {}).get("run")
    ]
    return sorted(found, key=lambda each: each.start)


def jobs_of(run: str, jobs: list[RunJob]) -> list[RunJob]:
    """Those of one run, the oldest first."""
    return [each for each in jobs if posixpath.normpath(each.run) == posixpath.normpath(run)]


# --- Stop


def stop_job(address: str, run: str) -> str:
    """Stop the job of a run as Ctrl-C does, and wait until it has ended; returns its id.

    Raises:
        InputError: no job of the run is going on.
        ServiceError: it has not ended in time.
    """
    client = connect(address)
    jobs = run_jobs(client)
    mine = jobs_of(run, jobs)
    going = [each for each in mine if each.goes_on]
    if not going:
        if mine:
            raise InputError(
                f"{run}: no job of it is going on at {address}; the last one, {mine[-1].job}, {mine[-1].state}"
            )
        raise InputError(
            f"{run}: no job of {address} has this run; `rayzero submit --list --address {address}` shows all"
        )
    for each in going:
        _stop(client, each.job)
    return ", ".join(each.job for each in going)


def _stop(client: Any, job: str) -> None:
    try:
        client.stop_job(job)
        deadline = time.monotonic() + 2 * STOP_WAIT_S
        while time.monotonic() < deadline:
            if client.get_job_status(job).is_terminal():
                return
            time.sleep(0.5)
    except (RuntimeError, OSError) as error:
        raise ServiceError(f"job {job}: was not stopped: {first_line(error)}") from None
    raise ServiceError(
        f"job {job}: has not ended {2 * STOP_WAIT_S} s after it was asked to; ask again, or look at its log"
    )


# --- Follow


class LostConnectionError(Exception):
    """The log does not come any more, though the job may go on."""


class Follower:
    """The log of one job, printed once however often the connection is lost."""

    def __init__(self, client: Any, job: str) -> None:
        self._client, self._job = client, job
        self._printed = 0
        """Characters of the log that stand on the terminal."""
        self._heard = 0.0
        """When the cluster answered last."""

    def follow(self) -> str:
        """Print the log until the job ends; returns its final state.

        Raises:
            ServiceError: no connection for `RECONNECT_S`, or the cluster does not know the job any more.
        """
        import aiohttp

        self._heard, pause, told = time.monotonic(), 1.0, False
        while True:
            try:
                status = self._status()
                asyncio.run(self._print())
                # A log that was opened after the job's end is whole; one that closes at some time may only look so.
                if status.is_terminal():
                    return str(status.value).lower()
            except (LostConnectionError, RuntimeError, OSError, aiohttp.ClientError) as error:
                self._check_known(error)
                if time.monotonic() - self._heard > RECONNECT_S:
                    raise ServiceError(
                        f"no connection to job {self._job} for {RECONNECT_S // 60} min, which may go on: {first_line(error)}"
                    ) from None
                if not told and not isinstance(error, LostConnectionError):
                    print(f"connection lost; trying again for {RECONNECT_S // 60} min", file=sys.stderr, flush=True)
                    told = True
                pause = min(2 * pause, 15.0)
            else:
                pause, told = 1.0, False
            time.sleep(pause)

    def _check_known(self, error: BaseException) -> None:
        if "does not exist" in str(error):
            raise ServiceError(
                f"the cluster does not know job {self._job} any more; was its head started again?"
            ) from None

    def _status(self) -> Any:
        status = self._client.get_job_status(self._job)
        self._heard = time.monotonic()
        return status

    async def _print(self) -> None:
        """Print what comes until the cluster closes the log, which it does when the job has ended."""
        stream = self._client.tail_job_logs(self._job)
        seen = 0
        try:
            while (text := await self._next(stream)) is not None:
                self._heard = time.monotonic()
                # A stream begins with the first line of the log, whatever was printed before.
                new = text[max(0, self._printed - seen) :]
                seen += len(text)
                if new:
                    print(new, end="", flush=True)
                    self._printed = seen
        finally:
            await stream.aclose()

    async def _next(self, stream: Any) -> str | None:
        """The next piece of the log; None: it has ended. Raises LostConnectionError where it goes on and does not come."""
        waiting = asyncio.ensure_future(anext(stream, None))
        try:
            for _ in range(QUIET_CHECKS):
                done, _pending = await asyncio.wait({waiting}, timeout=SILENCE_S)
                if done:
                    text: str | None = waiting.result()
                    return text
                if (await asyncio.to_thread(self._status)).is_terminal():
                    break
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.wait({waiting})
        raise LostConnectionError
