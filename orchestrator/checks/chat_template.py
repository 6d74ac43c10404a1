"""The chat template that a stage will read with, as the files of its model tell it before anything starts."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.checks.naming import key_in
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.sections.data import SourceSection
from orchestrator.config.sections.eval import EvalSetSection
from orchestrator.config.stage_kinds import kind_of
from orchestrator.config.wiring import line_of
from orchestrator.plan.model_folder import cached_folder, chat_templates, special_tokens
from rollout.data.template_settings import CHAT, is_chat
from rollout.errors import InputError

if TYPE_CHECKING:
    from rollout.data.rows import Row


LONGEST_S = 10.0
"""Time for rendering the rows of a source, in seconds."""


class FolderChat:
    """The chat template of a model folder, in the place of a tokenizer: it renders, and has no tokens."""

    def __init__(self, folder: Path) -> None:
        self.chat_template = chat_templates(folder)
        self._special = special_tokens(folder)
        self.eos_token = self._special.get("eos_token", "")
        self.name_or_path = str(folder)

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tokenize: bool = False,
        add_generation_prompt: bool = False,
    ) -> str:
        """As `transformers` renders it. Raises what a template raises."""
        # Only here: takes a second, and a recipe without a chat template does not need it.
        from transformers.utils.chat_template_utils import render_jinja_template

        assert not tokenize
        held = self.chat_template
        text = held if isinstance(held, str) else held["tool_use" if tools and "tool_use" in held else "default"]
        rendered, _ = render_jinja_template(
            [list(messages)],
            tools=tools,
            chat_template=text,
            add_generation_prompt=add_generation_prompt,
            **self._special,
        )
        return str(rendered[0])


def check_template(recipe: Recipe, stage: Stage) -> None:
    """Raises InputError when the prompt template of a stage is not there, its model has none of its own, or what the recipe says
    of it does not fit.
    """
    # Only here: a mistake in the recipe does not wait for pyarrow.
    from orchestrator.data.prompts import stage_template
    from rollout.data.few_shot import check_file

    shots, chat = stage.data.shots, chat_of(recipe, stage)
    try:
        if chat or not is_chat(stage.data.template):
            stage_template(stage, chat)
        elif shots:
            check_file(shots)
    except InputError as problem:
        raise InputError(_named(recipe, stage, str(problem))) from None


def chat_of(recipe: Recipe, stage: Stage) -> FolderChat | None:
    """The chat template of a stage, dressed along its line of models; None under other templates, and where the model is not here.

    Raises:
        InputError: there is none, a file is none, or what is said of one does not fit it.
    """
    from rollout.data.chat_template import check_args, dress, read_file

    line = line_of(recipe.stages, stage)
    model = line[0].model
    place = (Path(model.path) if Path(model.path).is_dir() else cached_folder(model.path)) if model.path else None
    chat = FolderChat(place) if place else None
    text = False
    for each in line:
        said = each.data.dress
        try:
            if chat is not None:
                dress(chat, said)
            elif said.template != CHAT:
                check_args([read_file(said.template)], said)
        except InputError as problem:
            raise InputError(_named(recipe, each, str(problem))) from None
        text = text or said.template != CHAT
    if not is_chat(stage.data.template):
        return None
    lacks = not chat.chat_template if chat else model.build.tokenizer == "characters" and not text
    if lacks:
        from rollout.data.templates import NO_CHAT_TEMPLATE

        raise InputError(
            f"{key_in(recipe, stage, 'data.template')} = 'chat': {model.path or 'the model that the recipe builds'} has no chat "
            f"template; {NO_CHAT_TEMPLATE}"
        )
    return chat


class Rendering:
    """The rows of a source, each rendered once as a stage will; nothing where that is not known before the run."""

    def __init__(self, recipe: Recipe, stage: Stage, section: SourceSection) -> None:
        """Raises InputError as `check_template` does."""
        self._render = _renderer(recipe, stage, section)
        self._left_s = LONGEST_S
        self._count = 0

    def look_at(self, row: "Row") -> None:
        """Raises InputError, with the file and the row in front, when the chat template does not take it."""
        if self._render is None or self._left_s <= 0:
            return
        began = time.monotonic()
        try:
            self._render(row)
        except InputError as problem:
            raise InputError(f"{row.place}: {problem}" if row.place else str(problem)) from None
        self._left_s -= time.monotonic() - began
        self._count += 1

    def notes(self, key: str, rows: int) -> list[str]:
        """A note when there was no time for all of the `rows`."""
        if self._render is None or self._count == rows:
            return []
        return [f"{key}: only its first {self._count:,} rows were rendered, which took {LONGEST_S:g} s"]


def _renderer(recipe: Recipe, stage: Stage, section: SourceSection) -> "Callable[[Row], object] | None":
    chat = chat_of(recipe, stage)
    if chat is None:
        return None
    from orchestrator.data.prompts import asking, stage_template
    from rollout.data.conversations import turns_of

    if section.messages_column:
        which = stage.sft.turns if stage.sft.mask_prompt else "last"
        return (lambda row: turns_of(row, chat, which)) if kind_of(stage).learns_from == "examples" else None
    template = asking(stage_template(stage, chat), section, stage)
    learned = kind_of(stage).learns_from in ("examples", "pairs") and not isinstance(section, EvalSetSection)

    def render(row: "Row") -> None:
        prompt = template.of_row(row)
        for given in filter(None, (row.completion, row.chosen, row.rejected) if learned else ()):
            template.reply_of_row(row, prompt, given)

    return render


def _named(recipe: Recipe, stage: Stage, problem: str) -> str:
    """A message that begins with a key of `data`, as the recipe names it in this stage; or else with that of the template."""
    for key in ("data.template", "data.system", "data.few_shot"):
        if problem.startswith(key):
            return problem.replace(key, key_in(recipe, stage, key), 1)
    return problem
