"""Outages: nothing is lost while what scores is down, and a completion that never can be scored is told from one."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from rewards import outage
from rewards.outage import Outages
from rollout.errors import ServiceError


class Judge:
    """Scores a text by its length, unless it is down or the text is a bad one."""

    def __init__(self) -> None:
        self.down = False
        self.raises = False
        self.no_process = False
        """Whether long texts, which need one, cannot be scored."""
        self.asked: list[str] = []

    async def ask(self, text: str) -> tuple[int, str, bool]:
        self.asked.append(text)
        await asyncio.sleep(0.001)
        if self.no_process and text != "known":
            return 0, "no process can be forked", True
        if self.down or text == "bad":
            if self.raises:
                raise ServiceError("nobody answers")
            return 0, "no answer" if self.down else "odd", False
        return len(text), "", False


class Rig:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, patience_s: float = 60.0) -> None:
        monkeypatch.setattr(outage, "FIRST_PAUSE_S", 0.01)
        monkeypatch.setattr(outage, "LONGEST_PAUSE_S", 0.04)
        self.said: list[str] = []
        self.judge = Judge()
        self.defect: Exception | None = None
        self.outages = Outages(patience_s, self.said.append, self.check)

    def check(self) -> None:
        if self.defect:
            raise self.defect

    async def score(self, text: str) -> int:
        return await self.outages.persist("judge", lambda: self.judge.ask(text), lambda: self.judge.ask(text))

    async def until_down(self) -> None:
        while not self.outages.down:
            await asyncio.sleep(0.001)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


@pytest.mark.parametrize("raises", [False, True])
def test_whatever_an_outage_met_is_scored_when_it_is_over(monkeypatch: pytest.MonkeyPatch, raises: bool) -> None:
    async def test() -> None:
        rig = Rig(monkeypatch)
        rig.judge.raises = raises
        assert await rig.score("known") == 5
        rig.judge.down = True
        asked = [asyncio.create_task(rig.score("x" * n)) for n in range(20)]
        await rig.until_down()
        generating = asyncio.create_task(rig.outages.clear())
        before = len(rig.judge.asked)
        await asyncio.sleep(0.2)
        assert len(rig.judge.asked) - before <= 8  # one of them asks, with growing pauses, and not all twenty
        assert not any(task.done() for task in (*asked, generating))
        rig.judge.down = False
        assert await asyncio.gather(*asked) == list(range(20))
        await generating
        assert ["judge is down" in rig.said[0], "judge is back" in rig.said[1], len(rig.said)] == [True, True, 2]

    run(test())


@pytest.mark.parametrize("raises", [False, True])
def test_what_can_never_be_scored_is_no_outage(monkeypatch: pytest.MonkeyPatch, raises: bool) -> None:
    async def test() -> None:
        rig = Rig(monkeypatch)
        rig.judge.raises = raises
        assert await rig.score("known") == 5
        if raises:
            with pytest.raises(ServiceError, match="nobody answers"):
                await rig.score("bad")
        else:
            assert await rig.score("bad") == 0
        assert rig.judge.asked.count("bad") == 2
        assert rig.said == []

    run(test())


def test_a_bad_one_in_an_outage_does_not_prolong_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        rig = Rig(monkeypatch)
        await rig.score("known")
        rig.judge.down = True
        asked = [asyncio.create_task(rig.score(text)) for text in ("bad", "fine")]
        await rig.until_down()
        rig.judge.down = False
        assert await asyncio.gather(*asked) == [0, 4]
        assert len(rig.said) == 2

    run(test())


def test_an_outage_that_does_not_end_is_told_with_who_waited_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        rig = Rig(monkeypatch, patience_s=0.1)
        await rig.score("known")
        rig.judge.down = True
        told = await asyncio.gather(rig.score("a"), rig.score("b"), return_exceptions=True)
        for problem in told:
            assert isinstance(problem, ServiceError)
            assert "2 scores waited 0 s for judge, which did not come back (rewards.outage_s = 0.1)" in str(problem)
        await rig.outages.clear()

    run(test())


@pytest.mark.parametrize("why", ["never worked", "no patience"])
def test_without_a_sign_that_it_ever_worked_an_error_stays_one(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    async def test() -> None:
        rig = Rig(monkeypatch, patience_s=0.0 if why == "no patience" else 60.0)
        if why == "no patience":
            await rig.score("known")
        rig.judge.down = True
        assert await rig.score("a") == 0
        assert rig.judge.asked.count("a") == 1

    run(test())


def test_a_defect_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        rig = Rig(monkeypatch)
        await rig.score("known")
        rig.judge.down = True
        asked = asyncio.create_task(rig.score("a"))
        await rig.until_down()
        rig.defect = ServiceError("reward service: a defect")
        with pytest.raises(ServiceError, match="a defect"):
            await asked

    run(test())


def test_many_outages_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        rig = Rig(monkeypatch)
        await rig.score("known")
        for n in range(3):
            rig.judge.down = True
            asked = [asyncio.create_task(rig.score("x" * (n + i))) for i in range(5)]
            await rig.until_down()
            rig.judge.down = False
            assert await asyncio.gather(*asked) == list(range(n, n + 5))

    run(test())


@pytest.mark.parametrize("worked", [True, False])
def test_an_outage_that_most_do_not_notice_is_one_for_those_who_do(
    monkeypatch: pytest.MonkeyPatch, worked: bool
) -> None:
    async def test() -> None:
        rig = Rig(monkeypatch)
        rig.judge.no_process = True
        if worked:
            assert await rig.score("known") == 5  # it needs no process
        asked = [asyncio.create_task(rig.score(text)) for text in ("bad", "a long text")]
        await rig.until_down()
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in asked)
        rig.judge.no_process = False
        assert await asyncio.gather(*asked) == [0, len("a long text")]  # the first one for a reason of its own

    run(test())
