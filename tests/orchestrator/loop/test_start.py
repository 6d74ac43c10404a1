"""What a stage starts from: which weights, made when, opened where, while the engines come up."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from learner.model.small import BuildSpec, character_tokenizer
from learner.spec import LearnerSpec
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.loop.start import build_model, open_model
from orchestrator.run.store import RunStore
from rollout.errors import InputError
from rollout.storage.objects import StoredFile
from tests.orchestrator.factories import recipe, write_rows
from tests.orchestrator.stage_context import Lines

BUILD = {"tokenizer": "characters", "layers": 1, "hidden": 32, "heads": 1, "kv_heads": 1, "intermediate": 32}


@dataclass
class Learner:
    """Writes what a build leaves, without the weights, and notes what it was asked."""

    events: list[str]
    built: list[tuple[BuildSpec, list[str], str]] = field(default_factory=list)
    opened: list[LearnerSpec] = field(default_factory=list)

    async def build(self, spec: BuildSpec, texts: Sequence[str], folder: str) -> tuple[int, list[StoredFile]]:
        self.built.append((spec, list(texts), folder))
        character_tokenizer().save_pretrained(folder)
        (Path(folder) / "config.json").write_text('{"model_type": "qwen2"}')
        return 1234, []

    async def open(self, spec: LearnerSpec) -> int:
        self.events.append("open")
        self.opened.append(spec)
        return 56789


class Services:
    """A learner that takes a moment to come up, and engines that wait for their model."""

    device = "cpu"

    def __init__(self) -> None:
        self.events: list[str] = []
        self.ranks = Learner(self.events)
        self.model: asyncio.Future[str] | None = None
        self.lineage = ""

    async def begin_learner(self, stage: Stage) -> None:
        self.events.append("begin learner")

    async def begin_rollout(self, stage: Stage, model: "asyncio.Future[str]", lineage: str) -> None:
        assert not model.done()
        self.events.append("begin engines")
        self.model, self.lineage = model, lineage

    async def take_gpus(self) -> None:
        self.events.append("engines leave the GPUs")

    async def learner(self) -> Learner:
        await asyncio.sleep(0)
        self.events.append("learner is up")
        return self.ranks


@dataclass
class Opened:
    """What became of one start."""

    path: str
    tokenizer: Any
    services: Services
    lines: list[str]


def opened(asked: Recipe, store: RunStore, stage: int = 0) -> Opened:
    services, display = Services(), Lines()

    async def run() -> tuple[str, Any]:
        made = await open_model(asked, asked.stages[stage], store, services, display)  # type: ignore[arg-type]
        if services.model is not None:
            assert services.model.result() == made[0], "the engines wait for the model that the learner opened"
        return made

    return Opened(*asyncio.run(asyncio.wait_for(run(), 60)), services, display.lines)


def stage(name: str, kind: str = "grpo", **settings: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind, **settings}


@pytest.fixture
def model(tmp_path: Path) -> str:
    character_tokenizer().save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_the_first_stage_opens_the_recipe_s_model_while_the_engines_come_up(tmp_path: Path, model: str) -> None:
    asked = recipe(model={"path": model}, seed=11)
    store = RunStore(tmp_path / "run", asked)
    found = opened(asked, store)
    assert found.path == model
    assert found.tokenizer("ab")["input_ids"] == character_tokenizer()("ab")["input_ids"]
    assert found.services.events == [
        "begin learner",
        "begin engines",
        "learner is up",
        "engines leave the GPUs",
        "open",
    ]
    (spec,) = found.services.ranks.opened
    assert (spec.model_path, spec.reference_path, spec.seed) == (model, model, 11)  # GRPO has a KL term
    assert found.lines == ["rl: 56,789 parameters, learner ready"]
    assert '"event": "model", "parameters": 56789' in (store.folder / "metrics.jsonl").read_text()


def test_a_later_stage_opens_what_the_one_before_it_left_and_keeps_its_engines(tmp_path: Path, model: str) -> None:
    asked = recipe(model={"path": model}, stages=[stage("one"), stage("two"), stage("three", model_from="one")])
    store = RunStore(tmp_path / "run", asked)
    for name in ("one", "two"):
        character_tokenizer().save_pretrained(store.export_folder(name))
    found = [opened(asked, store, number) for number in range(3)]
    assert [each.path for each in found] == [model, str(store.export_folder("one")), str(store.export_folder("one"))]
    assert len({each.services.lineage for each in found}) == 1
    other = stage("other", model={"path": f"{model}/."}, model_from="own")
    alone = opened(recipe(model={"path": model}, stages=[stage("one"), other]), store, 1)
    assert alone.services.lineage != found[0].services.lineage


def test_a_stage_that_generates_nothing_starts_no_engines(tmp_path: Path, model: str) -> None:
    pairs = {"a": {"path": "pairs.jsonl", "chosen_column": "good", "rejected_column": "bad"}}
    asked = recipe(model={"path": model}, data={"sources": pairs}, stages=[stage("scorer", "reward_model")])
    found = opened(asked, RunStore(tmp_path / "run", asked))
    assert found.services.events == ["begin learner", "learner is up", "engines leave the GPUs", "open"]
    assert found.services.ranks.opened[0].head == "score"


def test_a_folder_without_a_tokenizer_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    asked = recipe(model={"path": str(tmp_path / "model")})
    with pytest.raises(InputError, match="has no tokenizer that loads"):
        opened(asked, RunStore(tmp_path / "run", asked))


# --- Models that a run makes


def test_a_small_model_is_made_once_for_all_stages_that_begin_with_the_same(tmp_path: Path) -> None:
    """Also after a stop: the folder of the first start serves the second."""
    other = {"build": BUILD | {"hidden": 64}}
    stages = [
        stage("one"),
        stage("same", model_from="own"),
        stage("other", model_from="own", model=other),
        stage("other-again", model_from="own", model=other),
    ]
    asked = recipe(model={"build": BUILD}, seed=5, stages=stages)
    store = RunStore(tmp_path / "run", asked)
    found = [opened(asked, store, number) for number in range(4)]
    assert [each.path for each in found] == [str(store.folder / name) for name in ("base", "base", *["base-other"] * 2)]
    assert [len(each.services.ranks.built) for each in found] == [1, 0, 1, 0]
    assert found[0].lines[0] == f"built a Qwen2 of 1,234 parameters in {store.folder / 'base'}"
    specs = [each.services.ranks.built[0][0] for each in (found[0], found[2])]
    assert [(spec.hidden, spec.seed) for spec in specs] == [(32, 5), (64, 5)]
    assert found[0].services.events == [
        "begin learner",
        "begin engines",
        "learner is up",
        "learner is up",
        "engines leave the GPUs",
        "open",
    ]


def test_a_half_made_model_is_made_again(tmp_path: Path) -> None:
    asked = recipe(model={"build": BUILD})
    store = RunStore(tmp_path / "run", asked)
    (store.folder / "base").mkdir()
    (store.folder / "base" / "tokenizer.json").write_text("{}")
    assert len(opened(asked, store).services.ranks.built) == 1


@pytest.mark.parametrize(("kind", "told"), [("characters", []), ("bpe", ["one\n1", "two\nsteps", "three\nyes"])])
def test_a_bpe_tokenizer_is_trained_on_the_texts_of_all_sources_but_what_stages_leave(
    tmp_path: Path, kind: str, told: list[str]
) -> None:
    write_rows(tmp_path / "answers.jsonl", [{"prompt": "one", "answer": "1"}])
    write_rows(tmp_path / "worked.jsonl", [{"prompt": "two", "answer": "2", "worked": "steps"}])
    write_rows(tmp_path / "pairs.jsonl", [{"prompt": "three", "chosen": "yes", "rejected": "no"}])
    pairs = {"path": str(tmp_path / "pairs.jsonl"), "chosen_column": "chosen", "rejected_column": "rejected"}
    worked = {"path": str(tmp_path / "worked.jsonl"), "completion_column": "worked"}
    stages = [
        stage("sampled", "reject", data={"sources": {"answers": {"path": str(tmp_path / "answers.jsonl")}}}),
        stage("tuned", "sft", data={"sources": {"own": {"stage": "sampled"}, "worked": worked}}),
        stage("scorer", "reward_model", data={"sources": {"pairs": pairs}}),
    ]
    size = {"vocab_size": 300} if kind == "bpe" else {}
    asked = recipe(model={"build": BUILD | size | {"tokenizer": kind}}, stages=stages, data={})
    services, store = Services(), RunStore(tmp_path / "run", asked)
    folder = asyncio.run(build_model(asked, asked.stages[0], store, services, Lines()))  # type: ignore[arg-type]
    ((spec, texts, asked_for),) = services.ranks.built
    assert (spec.tokenizer, texts) == (kind, told)
    assert asked_for == folder == str(store.folder / "base")
