"""What the pages of all kinds ask of their context: requests with seeds of their own, and the prompts of their sources."""

import asyncio
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from learner.checkpoint import file_digests
from orchestrator.data.prompts import load_tokenizer
from orchestrator.loop.context import StageContext
from rollout.errors import InputError
from tests.factories import prompt
from tests.orchestrator.factories import recipe, write_rows
from tests.orchestrator.stage_context import Lines, Services, context_of

STAGES = ({"name": "rl", "kind": "grpo"}, {"name": "again", "kind": "grpo"})


def context(folder: Path, stage: int = 0, **sections: Any) -> StageContext:
    return context_of(recipe(stages=list(STAGES), **sections), folder, stage=stage)


def seeds_of(asked: StageContext, numbers: range = range(200)) -> list[int | None]:
    return [asked.request(number, prompt(), asked.stage.rollout, 4).sampling.seed for number in numbers]


def test_a_request_is_a_group_of_the_stage_under_the_settings_that_hold_then(tmp_path: Path) -> None:
    rl = context(tmp_path, rollout={"temperature": 0.5, "max_tokens": 20, "group_size": 16})
    later = rl.stage.rollout.model_copy(update={"temperature": 0.25, "max_tokens": 40})
    asked = prompt("s/3")
    for settings, expected in ((rl.stage.rollout, (4, 0.5, 20)), (later, (4, 0.25, 40))):
        request = rl.request(7, asked, settings, 4)
        sampling = request.sampling
        assert (sampling.n, sampling.temperature, sampling.max_tokens) == expected
        assert (request.group_id, request.prompt) == ("rl/7", asked)


def test_every_group_of_a_run_has_a_seed_of_its_own_which_a_continued_run_gives_it_again(tmp_path: Path) -> None:
    rl, again = (seeds_of(context(tmp_path, stage)) for stage in (0, 1))
    other = seeds_of(context(tmp_path, seed=8))
    assert len({*rl, *again, *other}) == 600
    assert seeds_of(context(tmp_path, 1)) == again


def test_a_seed_does_not_depend_on_what_is_asked_or_on_the_settings(tmp_path: Path) -> None:
    """So that what a change of settings does can be read from the same draws."""
    rl = context(tmp_path)
    hotter = rl.stage.rollout.model_copy(update={"temperature": 2.0, "max_tokens": 1})
    asked = prompt("s/9", text="else")
    assert rl.request(5, asked, hotter, 9).sampling.seed == seeds_of(rl)[5]


def test_prompts_of_a_stage_are_those_of_its_sources_in_the_order_of_the_run_s_seed(tmp_path: Path) -> None:
    def texts(seed: int) -> list[str]:
        sources = {"sums": {"task": "arithmetic", "limit": 9}, "own": {"path": str(file)}}
        sets = context(tmp_path, seed=seed, data={"template": "plain", "sources": sources}).load_prompts()
        assert list(sets.prompts) == ["sums", "own"]
        assert [each.text for each in sets.prompts["own"]] == ["one", "two"]
        return [each.text for each in sets.prompts["sums"]]

    file = write_rows(tmp_path / "own.jsonl", [{"prompt": "one", "answer": "1"}, {"prompt": "two", "answer": "2"}])
    assert len(texts(1)) == 9
    assert texts(1) == texts(1) != texts(2)


def test_prompts_that_are_too_long_are_left_out_and_told_of(tmp_path: Path) -> None:
    rows = [{"prompt": "short", "answer": "1"}, {"prompt": "much too long", "answer": "2"}]
    source = {"path": str(write_rows(tmp_path / "own.jsonl", rows))}
    data = {"template": "plain", "max_prompt_tokens": 6, "sources": {"own": source}}
    rl = context(tmp_path, data=data)
    assert isinstance(rl.display, Lines)
    assert rl.display.lines == []
    assert [each.text for each in rl.load_prompts().prompts["own"]] == ["short"]
    (note,) = rl.display.lines
    assert "own" in note
    assert "1 of 2" in note
    assert "data.max_prompt_tokens" in note


def test_a_source_that_cannot_be_read_is_an_input_error_that_names_it(tmp_path: Path) -> None:
    rl = context(tmp_path, data={"sources": {"own": {"path": str(tmp_path / "none.jsonl")}}})
    with pytest.raises(InputError, match=r"none\.jsonl"):
        rl.load_prompts()


class Ranks:
    """A learner whose checkpoints hold the caller's state alone."""

    async def save(self, folder: Path, state: dict[str, Any]) -> None:
        (folder / "state.json").write_text(json.dumps(state))

    async def load(self, folder: Path) -> None: ...

    def saved(self, folder: Path) -> None: ...

    async def digests(self, folder: Path) -> dict[str, str]:
        return file_digests(folder, 0, 1)

    exported: ClassVar[list[tuple[str, str]]] = []

    async def export(self, folder: Path, tokenizer_from: str) -> None:
        self.exported.append((str(folder), tokenizer_from))


class WithRanks(Services):
    async def learner(self) -> Any:
        return Ranks()


def test_a_stage_does_not_go_on_with_other_evaluation_problems(tmp_path: Path) -> None:
    """Its figures before and after could not be compared."""
    file = write_rows(tmp_path / "set.jsonl", [{"prompt": "1+1=", "answer": "2"}])
    asked = recipe(stages=list(STAGES), eval={"sets": {"sums": {"path": str(file)}}})

    def page() -> StageContext:
        return context_of(asked, tmp_path / "run", WithRanks())

    assert asyncio.run(page().resume()) is None
    asyncio.run(page().checkpoint(3, {"own": 1}))
    state = asyncio.run(page().resume())
    assert state is not None
    assert (state["step"], state["own"]) == (3, 1)
    write_rows(file, [{"prompt": "1+1=", "answer": "3"}])
    with pytest.raises(InputError, match=r"the problems of data source 'sums' .* changed since the run was started"):
        asyncio.run(page().resume())


def test_the_checkpoint_of_the_best_evaluation_is_kept_beside_the_newest(tmp_path: Path) -> None:
    loop = {"keep_checkpoints": 1}
    rl = context_of(recipe(stages=list(STAGES), loop=loop), tmp_path, WithRanks())
    kept = []
    for step, greedy in ((1, 0.5), (2, 0.9), (3, 0.7), (4, 0.95), (5, 0.1)):
        rl.store.record("eval", "rl", step=step, label="during", set="test", greedy=greedy)
        asyncio.run(rl.checkpoint(step, {}))
        kept.append([int(path.name[-1]) for path in rl.store.checkpoints("rl")])
    assert kept == [[1], [2], [2, 3], [4], [4, 5]]


JINJA = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def page_with(folder: Path, data: dict[str, Any]) -> StageContext:
    return context_of(recipe(stages=list(STAGES), data=data), folder / "run", WithRanks())


def test_a_stage_does_not_go_on_with_another_chat_template(tmp_path: Path) -> None:
    """Not even where no prompt shows the change: its export carries the template."""
    file = tmp_path / "my.jinja"
    data = {"template": str(file), "sources": {"a": {"task": "arithmetic", "limit": 5}}}
    file.write_text(JINJA)
    asyncio.run(page_with(tmp_path, data).checkpoint(3, {}))
    assert asyncio.run(page_with(tmp_path, data).resume())
    file.write_text(JINJA + "{% if tools %}tools{% endif %}")
    with pytest.raises(
        InputError, match=r"data\.template = '.*my\.jinja' is another since the run was started.*put it back"
    ):
        asyncio.run(page_with(tmp_path, data).resume())


def test_an_export_has_the_tokenizer_that_the_stage_has_read_with(tmp_path: Path) -> None:
    file = tmp_path / "my.jinja"
    file.write_text(JINJA)
    sources = {"a": {"task": "arithmetic", "limit": 5}}
    assert page_with(tmp_path, {"sources": sources}).tokenizer_folder() == "org/model"
    page = page_with(tmp_path, {"template": str(file), "system": "Brief.", "sources": sources})
    asyncio.run(page.export())
    ((_, tokenizer_from),) = Ranks.exported
    Ranks.exported.clear()
    back = load_tokenizer(tokenizer_from, trust_remote_code=False)
    written = back.apply_chat_template(
        [{"role": "user", "content": "1+1?"}], tokenize=False, add_generation_prompt=True
    )
    assert written == "[system]Brief.[user]1+1?[assistant]"
    assert page.load_prompts().prompts["a"][0].text.startswith("[system]Brief.[user]")
