"""The guides tell today's truth, as far as a machine without engines can tell: commands, fragments, names, paths, links."""

import ast
import functools
import importlib
import importlib.util
import inspect
import io
import re
import shlex
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestrator.checks.loss import check_loss
from orchestrator.checks.rewards import check_rewards
from orchestrator.cli import app, run
from orchestrator.clock import PhaseClocks
from orchestrator.config.key_table import recipe_keys
from orchestrator.config.load import load_recipe, parse_recipe, shipped_recipes
from orchestrator.config.recipe import Stage
from orchestrator.config.rubrics import preferring_label, rubrics_of
from orchestrator.config.trained_rewards import check_stage_models
from orchestrator.evaluation.score_file import find_rubric
from orchestrator.run.resume import FREE, SELECTION
from rewards.builtin import BUILTIN, DOCUMENTED
from rewards.error_budget import ErrorBudget
from rewards.models.scorers import KINDS
from rewards.types import Score
from rollout.storage.uri import is_uri
from tests.orchestrator.factories import NEEDED

ROOT = Path(__file__).parents[1]
ROOMS = ("rollout", "rewards", "learner", "orchestrator", "deploy", "tests")
GUIDES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.md")))
    if path.name != "CHANGELOG.md"  # tells of what was
)
MAKERS_OF_METRICS = (
    *(ROOT / "orchestrator" / "loop").glob("*.py"),
    *(ROOT / "orchestrator" / "stages").glob("*.py"),
    ROOT / "orchestrator" / "buffer.py",
    ROOT / "orchestrator" / "report" / "curves.py",
    ROOT / "rewards" / "service.py",
)
"""Files that hold names of metrics as they stand in metrics.jsonl."""
RECIPES_GUIDE = "orchestrator/recipes/README.md"
LANGUAGES = ("sh", "console", "text", "toml", "python", "json")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(rf"(?:{'|'.join(ROOMS)}|\.ci|\.github)/[\w./-]*")
KEY = re.compile(r"""(?:stages\.\w+\.)?([a-z_]+(?:\.(?:[\w-]+|"[^"]+"))+)(?:\.\*)?(?: ?=.*)?""", re.DOTALL)
ELSEWHERE = ("docker", "kubectl", "sbatch", "scancel", "tail")
"""Programs of other people's that the guides call."""
PLACEHOLDER = re.compile(r"[A-Z]+(/[A-Z]+)?")


@dataclass(frozen=True)
class Piece:
    """A fenced block, or a span of code in a line."""

    guide: Path
    language: str
    """Language of a block; empty: a span."""
    text: str

    def __str__(self) -> str:
        return f"{self.guide.relative_to(ROOT)}: {self.text.strip().splitlines()[0][:60]}"


@functools.cache
def blocks() -> tuple[Piece, ...]:
    return tuple(
        Piece(guide, language, textwrap.dedent(indent + text))
        for guide in GUIDES
        for indent, language, text in FENCE.findall(guide.read_text(encoding="utf-8"))
    )


@functools.cache
def spans() -> tuple[Piece, ...]:
    return tuple(Piece(guide, "", " ".join(text.split())) for guide in GUIDES for text in SPAN.findall(prose(guide)))


def prose(guide: Path) -> str:
    """A guide without its fenced blocks."""
    return FENCE.sub("", guide.read_text(encoding="utf-8"))


def of_language(*languages: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in blocks() if block.language in languages]


def commands() -> Iterator[tuple[Piece, list[str]]]:
    """Every command, as words: lines of `sh`, lines behind `$ ` of `console`, and spans that begin like one."""
    for block in blocks():
        if block.language in ("sh", "console"):
            for line in block.text.replace("\\\n", " ").splitlines():
                if block.language == "sh" or line.startswith("$ "):
                    for part in line.removeprefix("$ ").split(" | "):
                        yield block, shlex.split(part.split(" > ")[0], comments=True)
    for span in spans():
        if re.match(r"(rayzero|make|python -m|bash|ray) ", span.text):
            text = re.sub(r"\[(-[^\]]*|key=value …)\]", r"\1", span.text)
            yield span, [word for word in shlex.split(text.split(" > ")[0]) if word not in ("…", "key=value")]


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with the files that the guides let a reader write: they begin with their name."""
    for block in blocks():
        name = re.match(r"# (\w+\.(?:py|toml))\n", block.text)
        if block.language in ("python", "toml") and name:
            (tmp_path / name[1]).write_text(block.text)
    monkeypatch.chdir(tmp_path)


# --- Commands


@pytest.mark.usefixtures("user_folder")
@pytest.mark.parametrize(
    ("piece", "words"), [pytest.param(piece, words, id=str(piece)) for piece, words in commands() if words]
)
def test_a_command_runs_as_it_stands(piece: Piece, words: list[str]) -> None:
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]  # a variable of the command
    program, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "rayzero":
        check_rayzero(rest, complete=bool(piece.language))
    elif program == "make":
        check_make(rest)
    elif program == "python":
        check_module(rest)
    elif program == "ray":
        check_ray(rest)
    elif program == "pre-commit":
        from pre_commit.clientlib import load_config

        assert rest[0] in ("install", "run")
        assert load_config(ROOT / ".pre-commit-config.yaml")["repos"]
    elif program == "bash":
        assert (ROOT / rest[0]).is_file()
    elif program in ELSEWHERE:
        check_elsewhere(rest)
    else:
        assert program == "echo" or words == ["source", ".venv/bin/activate"], f"unknown program {program}"


def check_rayzero(words: list[str], complete: bool) -> None:
    """`complete`: nothing is left for the reader to fill in."""
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    if len(words) == 1 and not complete:
        return  # only named
    given = command.make_context(words[0], words[1:]).params
    if words[0] == "submit" and given["listed"]:
        assert not given["recipe"]
    elif words[0] in ("train", "check", "submit"):
        recipe = given["recipe"].removeprefix("runs/")
        recipe = "arithmetic" if PLACEHOLDER.fullmatch(recipe) or is_uri(recipe) else recipe
        needed = () if complete else NEEDED.get(recipe, ())
        stages = {stage.name for stage in load_recipe(recipe, [*needed, *(given["overrides"] or ())]).stages}
        asked = {given.get(name) for name in ("first", "last", "only")} - {None, ""}
        assert all(name in stages or PLACEHOLDER.fullmatch(name) for name in asked)
    elif words[0] == "eval":
        load_recipe("arithmetic", given["overrides"] or ())
    elif words[0] == "score" and not PLACEHOLDER.fullmatch(given["rubric"]):
        find_rubric(given["rubric"], given["overrides"] or ())
    elif words[0] == "scale":
        assert all(re.fullmatch(r"(rewards|rollout|learner)=\d+", size) for size in given["sizes"])


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    known = makefile + (ROOT / "deploy" / "install.sh").read_text()
    target, *settings = words
    assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"no target {target}"
    for setting in settings:
        name, _, value = setting.partition("=")
        assert re.search(rf"\b{name}\b", known), f"no variable {name}"
        if (target, name) == ("demo", "ARGS"):
            check_rayzero(["train", "arithmetic", *shlex.split(value)], complete=True)


def check_module(words: list[str]) -> None:
    flag, module, *options = words
    assert flag == "-m"
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"no module {module}"
    assert spec.origin is not None
    if module.startswith("tests."):
        text = Path(spec.origin).read_text(encoding="utf-8")
        for option in options:
            assert not option.startswith("--") or f'"{option}"' in text, f"{module} has no {option}"


def check_elsewhere(words: list[str]) -> None:
    """A command of a scheduler or a container engine: files of ours in it are there, and what it runs of ours runs."""
    files = [word for word in words if word.startswith("deploy/")]
    assert all((ROOT / file).is_file() for file in files)
    if words[0] == "run":  # docker
        check_rayzero(words[words.index("rayzero") + 1 :], complete=True)
    elif "deploy/slurm/rayzero.sh" in files:
        run, *rest = words[words.index("deploy/slurm/rayzero.sh") + 1 :]
        check_rayzero(["train", *rest, "--run", run], complete=True)


def check_ray(words: list[str]) -> None:
    from ray.scripts.scripts import cli

    known = {option for parameter in cli.commands[words[0]].params for option in parameter.opts}
    assert {word.partition("=")[0] for word in words[1:] if word.startswith("-")} <= known
    assert all((ROOT / word).is_file() for word in words[1:] if word.startswith("deploy/"))


@pytest.mark.parametrize("block", [each for each in of_language("console") if "rayzero score" in each.values[0].text])
def test_scoring_prints_what_the_guide_shows(
    block: Piece, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, output = block.text.removeprefix("$ ").split("\n", 1)
    said, asked = (shlex.split(part) for part in command.split(" | "))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said[1].encode())))
    assert run(asked[1:]) == 0
    captured = capsys.readouterr()
    assert captured.out + captured.err == output


# --- Fragments


@pytest.mark.usefixtures("user_folder")
@pytest.mark.parametrize("block", of_language("toml"))
def test_a_fragment_is_a_recipe_or_part_of_one(block: Piece) -> None:
    """What it leaves out, a name, a model, a stage, a source, is put beside it."""
    raw = {"name": "guide", "model": {"path": "some/model"}} | tomllib.loads(block.text)
    if "stages" not in raw:
        raw["stages"] = [{"name": "stage", "kind": "grpo"}]
        rubrics = raw.get("rewards", {}).get("rubrics", {"default": {}})
        sources = {rubric: {"task": "arithmetic", "rubric": rubric} for rubric in rubrics}
        raw.setdefault("data", {}).setdefault("sources", sources)
    recipe = parse_recipe(raw)
    check_stage_models(recipe)
    for stage in recipe.stages:
        check_rewards(recipe, stage)
        assert check_loss(recipe, stage) == []


def stages_of(guide: str, title: str) -> dict[str, Stage]:
    """The stages of all fragments of a section of a guide, in their order, as those of one recipe that passes its checks."""
    texts = [text for _, language, text in FENCE.findall(section(guide, title)) if language == "toml"]
    stages = tomllib.loads("\n".join(text for text in texts if "[[stages]]" in text))["stages"]
    recipe = parse_recipe({"name": "guide", "model": {"path": "some/model"}, "stages": stages})
    check_stage_models(recipe)
    for stage in recipe.stages:
        check_rewards(recipe, stage)
    return {stage.name: stage for stage in recipe.stages}


def test_general_questions_are_sampled_as_described() -> None:
    general = stages_of(RECIPES_GUIDE, "Kinds of stages")["general-samples"]
    (chat,) = general.data.sources.values()
    assert (general.kind, general.reject.keep) == ("reject", "best")
    assert (chat.keep_thought, chat.answer_column, chat.rubric) == ("complex", "", "general")
    assert preferring_label(rubrics_of(general)["general"]) == "helpful"


def test_preferences_are_learned_from_and_serve_a_later_stage_as_described() -> None:
    stages = stages_of(RECIPES_GUIDE, "Kinds of stages")
    helpful, rl = stages["helpful"], stages["rl"]
    assert list(stages)[-2:] == ["helpful", "rl"]
    assert (helpful.kind, rl.kind) == ("reward_model", "grpo")
    (pairs,) = helpful.data.sources.values()
    assert (pairs.chosen_column, pairs.rejected_column) == ("chosen", "rejected")
    (function,) = rubrics_of(rl)["general"]
    assert (function.name, function.args) == ("reward_model", {"path": "stage:helpful", "sigmoid": True})
    assert [source.rubric for source in rl.data.sources.values()] == ["general"]


def test_completions_are_compared_with_given_ones_as_described() -> None:
    stages = stages_of(RECIPES_GUIDE, "Evaluation")
    assert [stage.kind for stage in stages.values()] == ["reward_model", "eval"]
    compared = stages["compared"]
    assert list(compared.eval.prompt_sets) == ["chat"]
    chat = compared.eval.prompt_sets["chat"]
    assert (chat.baseline_column, chat.rubric, chat.answer_column) == ("chosen", "general", "")
    assert preferring_label(rubrics_of(compared)["general"], chat.judged_by) == "helpful"


def test_a_fine_tuning_on_conversations_is_the_recipe_of_its_section() -> None:
    (text,) = [block.text for block in blocks() if block.language == "toml" and "messages_column" in block.text]
    (talk,) = parse_recipe(tomllib.loads(text)).stages
    assert (talk.kind, talk.data.template, talk.data.sources["talk"].messages_column) == ("sft", "chat", "messages")


@pytest.mark.parametrize("block", of_language("python"))
def test_an_example_compiles_and_finds_its_imports(block: Piece) -> None:
    for node in ast.walk(ast.parse(block.text)):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, each.name) for each in node.names)
        assert all(importlib.util.find_spec(name) for name in names)


@pytest.mark.usefixtures("user_folder")
def test_the_reward_of_ones_own_is_found_by_the_command_beside_it() -> None:
    (words,) = [
        words for piece, words in commands() if piece.language and any("my_rewards.py" in word for word in words)
    ]
    recipe = load_recipe(words[2], words[3:])
    check_rewards(recipe, recipe.stages[0])
    assert "my_rewards.py:brevity" in str(recipe.stages[0].rewards.rubrics)


def test_every_loss_of_the_table_is_a_recipe_without_a_note() -> None:
    table = section("learner/README.md", "Which loss").split("| part |")[0]
    settings = re.findall(r"^\| .* \| `(.*)` \|$", table, re.MULTILINE)
    assert len(settings) == 6
    for line in settings:
        recipe = load_recipe("arithmetic", line.split())
        assert [note for stage in recipe.stages for note in check_loss(recipe, stage)] == []


def test_the_table_of_r1_names_its_stages_and_sources() -> None:
    text = section(RECIPES_GUIDE, "R1 on real models")
    for stage in load_recipe("r1", NEEDED["r1"]).stages:
        assert f"`{stage.name}`" in text
        for name, source in stage.data.sources.items():
            assert source.stage or f"`{name}`" in text


def test_every_recipe_that_ships_is_in_its_guide_and_says_what_it_needs() -> None:
    text = section(RECIPES_GUIDE, "What ships")
    for name in shipped_recipes():
        assert f"`{name}`" in text
        assert load_recipe(name, NEEDED.get(name, ())).name == name


def test_every_reward_function_that_ships_is_in_its_guide_with_its_arguments() -> None:
    text = section("rewards/README.md", "Functions that ship")
    own = {"reward_model": "Reward models", "judge": "LLM judges"}
    for name in BUILTIN:
        assert re.search(rf"^\| `{name}` \|", text, re.MULTILINE), f"no row for {name}"
        told = section("rewards/README.md", own[name]) if name in own else text
        assert [argument for argument in arguments_of(name) if f"`{argument}`" not in told] == [], name


def arguments_of(function: str) -> list[str]:
    """Arguments of a reward function that a recipe may give."""
    if function in KINDS:
        return [each.name for each in fields(KINDS[function][0])]
    names = list(inspect.signature(DOCUMENTED[function]).parameters)[3:]
    return [name for name in names if name not in ("tokens", "finished")]


def test_every_key_that_may_change_between_two_starts_is_in_the_guide() -> None:
    text = section(RECIPES_GUIDE, "Stop, continue, scale")
    for key in FREE | SELECTION:
        assert f"`{key}`" in text or f"`{key.partition('.')[2]}`" in text, key


def test_the_metrics_of_the_guide_are_those_of_a_step() -> None:
    budget = ErrorBudget(0.1)
    budget.add(Score(value=1.0, status="ok", breakdown={}, seconds=0.0), waited_s=0.0)
    known = {*PhaseClocks().step(), *budget.metrics()}
    for file in MAKERS_OF_METRICS:
        known.update(re.findall(r'"([a-z_]+/[a-z_]+)"', file.read_text(encoding="utf-8")))
    assert {name for name in metrics() if name.islower()} == known - {"tokens/s"}


@functools.cache
def metrics() -> frozenset[str]:
    """The metrics that the guide explains."""
    text = section(RECIPES_GUIDE, "The run directory").split("\n### Metrics\n")[1]
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return frozenset(name for row in rows for name in SPAN.findall(row))


def section(guide: str, title: str) -> str:
    return (ROOT / guide).read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


# --- Names


@functools.cache
def known_keys() -> str:
    """Every key of a recipe, a line each. An evaluation set has the keys of a source, whether the table repeats them or not."""
    keys = [key.replace("[]", "") for key, *_ in recipe_keys()]
    return "\n".join([*keys, *(key.replace("data.sources", "eval.sets") for key in keys)])


def test_every_key_that_a_guide_names_is_one() -> None:
    sections = {line.split(".")[0] for line in known_keys().splitlines() if "." in line}
    unknown = []
    for span in spans():
        for word in [span.text, *span.text.split()]:
            key = KEY.fullmatch(word)
            if (
                key
                and key[1].split(".")[0] in sections
                and ":" not in word
                and not word.endswith((".py", ".toml", ".json"))
            ):
                pattern = r"\.".join(
                    part if part.islower() and part.isidentifier() else "(?:NAME|LABEL)" for part in parts(key[1])
                )
                if not re.search(rf"^{named(pattern)}(\.|$)", known_keys(), re.MULTILINE):
                    unknown.append(f"{span}: {word}")
    assert unknown == []


def parts(key: str) -> list[str]:
    return re.findall(r'"[^"]+"|[\w-]+', key)


def named(pattern: str) -> str:
    """What follows a table of names (`data.sources`, `eval.sets`, `rewards.rubrics`) is a name, however it looks."""
    return re.sub(
        r"(data\\\.sources|eval\\\.sets|rewards\\\.rubrics)\\\.(?:\(\?:NAME\|LABEL\)|\w+)", r"\1\\.NAME", pattern
    )


def test_every_path_and_function_that_a_guide_names_is_there() -> None:
    missing = []
    for span in spans():
        if PATH.fullmatch(span.text) and span.text not in metrics() and not (ROOT / span.text).exists():
            missing.append(str(span))
        if re.fullmatch(r"(rollout|rewards|learner|orchestrator)(\.\w+)+:\w+", span.text):
            module, _, name = span.text.partition(":")
            assert hasattr(importlib.import_module(module), name), str(span)
    assert missing == []


def test_every_link_leads_somewhere() -> None:
    broken = []
    for guide in GUIDES:
        for link in LINK.findall(SPAN.sub(lambda span: span[0].replace("](", "]  ("), prose(guide))):
            if link.startswith(("http://", "https://")):
                continue
            path, _, anchor = link.partition("#")
            target = (guide.parent / path).resolve() if path else guide
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{guide.relative_to(ROOT)}: {link}")
    assert broken == []


def anchors(guide: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(guide), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize(
    "place",
    [
        "orchestrator/buffer.py",
        "rewards/README.md#when-a-reward-hangs-dies-or-errs",
        "learner/README.md#where-to-add-a-loss",
    ],
)
def test_what_a_newcomer_asks_is_one_hop_from_the_readme(place: str) -> None:
    assert place in LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))


def test_every_room_is_named_in_the_readme_or_in_its_guide() -> None:
    for top in ROOMS[:4]:
        guide = ROOT / top / "README.md"
        text = (ROOT / "README.md").read_text(encoding="utf-8") + (
            guide.read_text(encoding="utf-8") if guide.exists() else ""
        )
        for folder in sorted(path.parent for path in (ROOT / top).glob("*/__init__.py")):
            assert f"`{folder.relative_to(ROOT)}/" in text, f"no line about {folder.relative_to(ROOT)}/"


def test_every_block_says_what_it_is() -> None:
    assert [str(block) for block in blocks() if block.language not in LANGUAGES] == []
