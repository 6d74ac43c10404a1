"""Client of a reward server as OpenRLHF's trainer asks one (`--remote_rm_url`): scores come from a URL.

    POST URL   {"query": [prompt + completion], "prompts": [prompt], "labels": [reference]}
    → {"rewards": [number], "scores": [number], "extra_logs": {name: [number]}}       of which only `rewards` must be there

One completion a request. A server that is down, slow or answers no number is an error and never a reward.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from rewards.argument_types import check_types
from rewards.processes.forms import Refused, batch_scores, remote_request
from rewards.types import FunctionScore, FunctionSpec, Sample
from rollout.errors import InputError, did_you_mean

_MAX_ANSWER_BYTES = 4 << 20
_FIRST_WAIT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Settings of a reward server, as the recipe has them."""

    timeout_s: float = 60.0
    """Longest wait for the answer to one request, in seconds."""
    attempts: int = 3
    """Requests for one score at most; only what may pass is tried again."""


class ServerFunction:
    """A reward function that a server computes."""

    probe: tuple[Sample, Sample] | None = None

    def __init__(self, spec: FunctionSpec) -> None:
        """Raises InputError when the arguments are not those of a reward server."""
        known = ("timeout_s", "attempts")
        for name in spec.args:
            if name not in known:
                hint = did_you_mean(name, known) or f"; it takes {', '.join(known)}"
                raise InputError(f"reward server {spec.name!r} has no argument {name!r}{hint}")
        check_types(spec, ServerSettings)
        self._settings = ServerSettings(**spec.args)
        if not (self._settings.timeout_s > 0 and self._settings.attempts > 0):
            raise InputError(f"reward server {spec.name!r}: timeout_s and attempts must be greater than 0")
        if spec.group or spec.form not in ("", "openrlhf"):
            raise InputError(f"reward server {spec.name!r} scores one completion a request; leave out group and form")
        self._url = spec.name
        self._entry = spec.entry

    async def score(self, sample: Sample) -> FunctionScore:
        body = remote_request(sample.prompt, [sample.completion], sample.answer)
        problem = ""
        for attempt in range(self._settings.attempts):
            await asyncio.sleep(_FIRST_WAIT_S * (2**attempt - 1))
            try:
                (score,) = batch_scores(await self._post(body), self._entry, 1)
            except _Passing as passing:
                problem = str(passing)
                continue
            except (Refused, ValueError, RecursionError) as refused:
                return FunctionScore(status="error", error=f"reward server {self._url}: {refused}")
            assert score is not None
            return FunctionScore(value=score["value"], metrics=score["metrics"])
        error = f"reward server {self._url}: {problem} ({self._settings.attempts} attempts)"
        return FunctionScore(status="error", error=error)

    async def _post(self, body: dict[str, Any]) -> Any:
        """The answer to one request. Raises _Passing for what may pass, Refused or ValueError for what does not."""
        import aiohttp  # few recipes have a server

        # Half a character, as broken JSON has it, is no UTF-8: ASCII escapes carry it.
        data = json.dumps(body).encode()
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(
                    self._url, data=data, headers={"Content-Type": "application/json"}, allow_redirects=False
                ) as answer,
            ):
                text = await _read(answer)
                if answer.status != 200:
                    said = f"HTTP {answer.status}: {' '.join(text.decode(errors='replace').split()):.200}"
                    raise _Passing(said) if answer.status in (408, 429) or answer.status >= 500 else Refused(said)
        except TimeoutError:
            raise _Passing(f"no answer within {self._settings.timeout_s:g} s") from None
        except aiohttp.InvalidURL:
            raise Refused("it is not a URL") from None
        except aiohttp.ClientError as failure:
            raise _Passing(f"{type(failure).__name__}: {failure}") from None
        try:
            return json.loads(text)
        except ValueError:
            raise Refused(f"answered {text[:80]!r}, which is not JSON") from None


class _Passing(Exception):
    """This request failed; another may not."""


async def _read(answer: Any) -> bytes:
    parts = bytearray()
    async for part in answer.content.iter_any():
        parts += part
        if len(parts) > _MAX_ANSWER_BYTES:
            raise Refused(f"answered more than {_MAX_ANSWER_BYTES} bytes")
    return bytes(parts)
