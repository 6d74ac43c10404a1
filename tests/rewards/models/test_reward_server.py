"""A reward server in OpenRLHF's form, on the loopback: what is sent, what counts, and that no failure becomes a reward."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from rewards.models import reward_server
from rewards.resources import Resources, ResourceSettings
from rewards.rubric import Rubric
from rewards.types import FunctionSpec, Sample, Score
from rollout.errors import InputError

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
SAMPLE = Sample(prompt="1+1=", completion="2 \ud83d", answer="2")


def ask(answer: Answer, **settings: Any) -> Score:
    """The score of one completion by a server that answers so."""

    async def run() -> Score:
        app = web.Application()
        app.router.add_post("/get_reward", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            spec = FunctionSpec(name=f"http://127.0.0.1:{port}/get_reward", label="remote", **settings)
            return await Rubric("r", [spec], Resources(ResourceSettings())).score(SAMPLE)
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def says(body: Any, status: int = 200) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        if isinstance(body, str):
            return web.Response(text=body, status=status)
        return web.json_response(body, status=status)

    return answer


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_server, "_FIRST_WAIT_S", 0.01)


def test_the_request_is_the_one_that_the_server_knows() -> None:
    seen: list[Any] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(await request.json())
        return web.json_response({"rewards": [0.75], "scores": [1], "extra_logs": {"length": [12]}})

    score = ask(answer)
    assert seen == [{"query": ["1+1=2 \ud83d"], "prompts": ["1+1="], "labels": ["2"]}]
    assert (score.status, score.value) == ("ok", 0.75)
    assert score.metrics == {"remote.scores": 1.0, "remote.length": 12.0}


@pytest.mark.parametrize(
    ("body", "settings", "value"),
    [({"rewards": [1]}, {}, 1.0), ([0.5], {}, 0.5), ({"rewards": [1], "scores": [0.25]}, {"entry": "scores"}, 0.25)],
)
def test_what_counts(body: Any, settings: dict[str, Any], value: float) -> None:
    assert ask(says(body), **settings).value == value


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"reward": [1]}, 200, "without 'rewards'; it has: reward"),
        ({"rewards": [1, 2]}, 200, "it must be a list of 1 numbers"),
        ({"rewards": ["1"]}, 200, "returned '1', which is not a number"),
        ({"rewards": [None]}, 200, "returned None, which is not a number"),
        ('{"rewards": [NaN]}', 200, "returned nan, which is not a number"),
        ("fine", 200, "answered b'fine', which is not JSON"),
        ({"detail": "no such route"}, 404, 'HTTP 404: {"detail": "no such route"}'),
        ("busy", 503, "HTTP 503: busy (3 attempts)"),
    ],
)
def test_no_answer_is_no_reward(body: Any, status: int, error: str) -> None:
    score = ask(says(body, status))
    assert score.status == "error"
    assert error in score.error


def test_a_server_that_was_busy_is_asked_again() -> None:
    answers = iter([says("busy", 503), says({"rewards": [1]})])

    async def answer(request: web.Request) -> web.StreamResponse:
        return await next(answers)(request)

    assert ask(answer).value == 1.0


def test_a_server_that_hangs_ends_by_its_timeout() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(2)
        return web.json_response({"rewards": [1]})

    score = ask(answer, args={"timeout_s": 0.1, "attempts": 1})
    assert (score.status, "no answer within 0.1 s" in score.error) == ("error", True)


def test_a_server_that_is_not_there_is_an_error() -> None:
    spec = FunctionSpec(name="http://127.0.0.1:9/get_reward", label="remote")
    score = asyncio.run(Rubric("r", [spec], Resources(ResourceSettings())).score(SAMPLE))
    assert score.status == "error"
    assert "reward server http://127.0.0.1:9/get_reward: ClientConnectorError" in score.error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"args": {"timeout": 3}}, "has no argument 'timeout'; did you mean 'timeout_s'?"),
        ({"args": {"timeout_s": "3"}}, "timeout_s = '3'"),
        ({"args": {"attempts": 0}}, "must be greater than 0"),
        ({"group": True}, "scores one completion a request"),
        ({"form": "trl"}, "leave out group and form"),
    ],
)
def test_settings_that_a_server_does_not_have(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Rubric("r", [FunctionSpec(name="http://h/get_reward", label="x", **changes)], Resources(ResourceSettings()))
    assert message in str(caught.value)
