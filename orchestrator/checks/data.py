"""Whether the data of a recipe can be read, holds what its stages ask of it, and is not evaluated on."""

import glob
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.checks.chat_template import Rendering
from orchestrator.checks.naming import key_in
from orchestrator.checks.references import References
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.sections.data import SourceSection
from orchestrator.config.sections.eval import EvalSetSection
from orchestrator.config.stage_kinds import kind_of
from orchestrator.config.wiring import line_of
from orchestrator.plan.machine import in_units
from rollout.data.known_sets import KNOWN_SETS
from rollout.data.template_settings import is_chat
from rollout.errors import InputError

if TYPE_CHECKING:
    from rollout.data.rows import Dialogue, Row

LARGE_BYTES = 32 << 20
"""Size from which on a data file is read here in its first rows alone, as a generated task is."""
MOST_TEXT = 8 * LARGE_BYTES
"""Characters of the rows of a source that are read here, however small the file is that they are packed in."""
FIRST_ROWS = 1000
"""Rows that are read of such a file or task."""


def check_data(recipe: Recipe, training: bool) -> list[str]:
    """Notes about the data of all stages; with `training` off only about the evaluation sets.

    Raises:
        InputError: a source cannot be read or lacks a column, or an evaluation set is trained on.
    """
    reader = _Reader(recipe)
    for stage in recipe.stages:
        for name, section in stage.data.sources.items() if training else ():
            if section.stage:  # its rows are made by the run
                continue
            _check_columns(recipe, stage, f"data.sources.{name}", section, training=True)
            reader.read(stage, "data.sources", name, section)
        if (
            training
            and kind_of(stage).learns_from == "pairs"
            and not (stage.eval.pair_sets or getattr(stage, stage.kind).held_out)
        ):
            reader.notes.append(
                f"stage {stage.name} holds no pairs out, so neither accuracy nor calibration will be known: set "
                f"{stage.kind}.held_out=0.1, or give an eval set with pairs"
            )
        if training and kind_of(stage).counts_epochs and stage.sft.epochs:
            reader.notes += _length(stage, reader)
        for name, section in stage.eval.sets.items():
            _check_columns(recipe, stage, f"eval.sets.{name}", section, training=False)
            reader.read(stage, "eval.sets", name, section)
    if training:
        reader.check_overlap()
    return reader.notes


def _check_columns(recipe: Recipe, stage: Stage, key: str, section: SourceSection, training: bool) -> None:
    """Whether the rows will hold what the stage asks of them. Generated tasks hold all but pairs."""
    named = key_in(recipe, stage, key)
    if section.messages_column:
        _check_conversations(recipe, stage, key, section, training)
        return
    if training and kind_of(stage).learns_from == "pairs":
        if not section.holds_pairs:
            raise InputError(
                f"{named}: {stage.kind} needs preference pairs; name their columns with `chosen_column` and "
                "`rejected_column`"
            )
        return
    if training and kind_of(stage).leaves == "rows":
        _check_right(named, stage, section)
    compared = isinstance(section, EvalSetSection) and section.baseline_column
    if section.task or (section.holds_pairs and not training and not compared):
        return
    if training and kind_of(stage).learns_from == "examples":
        if not section.completion_column:
            raise InputError(
                f"{named}: sft needs worked completions; name their column with `completion_column`, or that of "
                "conversations with `messages_column`"
            )
        return
    functions = stage.rewards.rubrics[section.rubric]
    if not section.answer_column and any(function.name == "accuracy" for function in functions.values()):
        raise InputError(
            f"{named}: rubric {section.rubric!r} checks accuracy, but answer_column is empty; "
            "name the column with the reference answer"
        )


def _check_right(named: str, stage: Stage, section: SourceSection) -> None:
    """Raises InputError when a `reject` stage keeps what is right and nothing says what that is."""
    # Only here: brings numpy.
    from orchestrator.config.rubrics import correct_label, rubrics_of

    if stage.reject.keep != "best" and not correct_label(rubrics_of(stage)[section.rubric]):
        raise InputError(
            f"{named}: reject.keep = {stage.reject.keep!r}, but nothing in rubric {section.rubric!r} says what is right; "
            'set reject.keep = "best" (by reward), in a stage of its own if other sources have answers'
        )


def _check_conversations(recipe: Recipe, stage: Stage, key: str, section: SourceSection, training: bool) -> None:
    named = f"{key_in(recipe, stage, key)}: messages_column = {section.messages_column!r}"
    if section.completion_column or section.answer_pattern:
        other = "completion_column" if section.completion_column else "answer_pattern"
        raise InputError(f"{named} holds whole conversations; remove {other}")
    if training and kind_of(stage).learns_from != "examples":
        raise InputError(f"{named}: conversations are for sft; {stage.kind} needs prompts: name their column")
    if kind_of(stage).learns_from == "examples" and not is_chat(stage.data.template):
        raise InputError(
            f"{named}: conversations are rendered by the model's chat template, but "
            f'{key_in(recipe, stage, "data.template")} = {stage.data.template!r}; set it to "chat"'
        )


def _length(stage: Stage, reader: "_Reader") -> list[str]:
    """A note of how many steps the epochs of a stage are, where all of its rows were read here."""
    counts = [(section.weight, reader.num_examples(stage, section)) for section in stage.data.sources.values()]
    if not all(count for _, count in counts):
        return []
    total = sum(int(stage.sft.epochs * weight * count + 0.5) for weight, count in counts)
    steps = -(-total // stage.sft.batch_size)
    return [
        f"stage {stage.name}: sft.epochs = {stage.sft.epochs:g} are {total:,} examples, {steps:,} steps "
        "(fewer if some are longer than model.max_tokens)"
    ]


class _Reader:
    """Reads every source of a recipe once and keeps its questions."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._questions: dict[tuple[str, str], tuple[str, ...]] = {}
        self._counts: dict[str, tuple[int, int]] = {}
        """(rows, turns of an assistant in them) of every source that was read to its end."""
        self._dialogues: dict[str, Dialogue] = {}
        """The first prompt of every source that only a chat template can write."""
        self._training: dict[str, str] = {}
        self._held_out: dict[str, tuple[str, ...]] = {}
        self.notes: list[str] = []

    def read(self, stage: Stage, kind: str, name: str, section: SourceSection) -> None:
        """Raises InputError, with the key of the source in front, when a row cannot be used."""
        key = f"{kind}.{name}"
        same = _origin(section)
        # Rendered once under each template.
        seen = (same, _rendering(self._recipe, stage, section))
        if seen not in self._questions:
            self._questions[seen] = self._load(stage, key, name, section)
        if same in self._dialogues and not is_chat(stage.data.template):
            # Only here: a mistake in the recipe does not wait for it.
            from rollout.data.templates import unwritten

            first = self._dialogues[same]
            said = unwritten(first, stage.data.template)
            raise InputError(f"{key_in(self._recipe, stage, key)}: row {first.row_id}: {said}")
        questions = self._questions[seen]
        self._check_examples(stage, key, questions)
        if kind == "eval.sets":
            self._held_out[key] = questions
            return
        for question in questions:
            self._training.setdefault(question, key)

    def _check_examples(self, stage: Stage, key: str, questions: tuple[str, ...]) -> None:
        """Raises InputError when a question of an evaluation set stands, answered, among the examples before every question."""
        # Only here: brings pyarrow.
        from rollout.data.few_shot import example_questions

        shots = stage.data.shots
        shown = example_questions(shots) if shots else frozenset()
        seen = [question for question in questions if question in shown]
        if not seen:
            return
        named, example = key_in(self._recipe, stage, key), _short(seen[0])
        said = f"{len(seen)} of its questions are among the examples of data.few_shot, with their answers, such as {example!r}"
        if key.startswith("eval.sets"):
            raise InputError(f"{named}: {said}\nremove them from one of the two")
        self.notes.append(f"{named}: {said}")

    def num_examples(self, stage: Stage, section: SourceSection) -> int:
        """Number of examples that a stage makes of a source; 0: not known here."""
        rows, turns = self._counts.get(_origin(section), (0, 0))
        every_turn = section.messages_column and stage.sft.mask_prompt and stage.sft.turns == "all"
        return turns if every_turn else rows

    def _load(self, stage: Stage, key: str, name: str, section: SourceSection) -> tuple[str, ...]:
        # Only here: brings pyarrow, which `--help` and a mistake in the recipe do not wait for.
        from rollout.data.sources import iter_rows

        source = section.source(name)
        size = _data_bytes(section.path)
        if (section.task or size > LARGE_BYTES) and not 0 < section.limit <= FIRST_ROWS:
            # All rows of a task are alike, and those of its other split cannot be among them.
            source = replace(source, limit=FIRST_ROWS)
            if section.path:
                self.notes.append(f"{key} holds {in_units(size)}: only its first {FIRST_ROWS:,} rows were checked")
        questions: list[str] = []
        count = turns = held = 0
        references = References.of(stage, section)
        needs = KNOWN_SETS[section.set].needs if section.set else ()
        untested: list[str] = []
        rendering = Rendering(self._recipe, stage, section)
        try:
            # One at a time: a row may hold megabytes of tests, of which nothing is kept.
            for count, row in enumerate(iter_rows(source, self._recipe.seed), 1):
                if count == 1:
                    self._check_published(stage, key, section, row)
                turns += sum(message["role"] == "assistant" for message in row.messages)
                questions += [m["content"].strip() for m in row.messages if m["role"] == "user"] or [
                    row.question.strip()
                ]
                references.look_at(row)
                rendering.look_at(row)
                untested += [row.place] if any(not row.fields.get(column) for column in needs) else []
                if row.dialogue:
                    self._dialogues.setdefault(_origin(section), row.dialogue)
                held += len(row.question) + sum(map(len, row.fields.values()))
                if held > MOST_TEXT:
                    self.notes.append(f"{key}: only its first {count:,} rows were checked: they hold {in_units(held)}")
                    break
        except InputError as error:
            # The key says which source it is, and where to mend it.
            message = str(error).removeprefix(f"source {name!r}").removeprefix(": ")
            named = key_in(self._recipe, stage, key)
            raise InputError(message if message.startswith(f"{named}: ") else f"{named}: {message}") from None
        self.notes += [*references.notes(key), *rendering.notes(key, count)]
        if untested:
            self.notes.append(
                f"{key}: {len(untested):,} of {count:,} rows have no tests ({' and '.join(needs)}), first {untested[0]}; their "
                "programs cannot be scored: remove these rows"
            )
        if source.limit == section.limit and held <= MOST_TEXT:
            self._counts[_origin(section)] = count, turns
        return tuple(questions)

    def _check_published(self, stage: Stage, key: str, section: SourceSection, row: "Row") -> None:
        """Raises InputError when a file lacks what the tests of a published set are read from."""
        needs = KNOWN_SETS[section.set].needs if section.set else ()
        missing = [column for column in needs if column not in row.fields]
        if missing:
            raise InputError(
                f"{key_in(self._recipe, stage, key)}: {section.path} is not {section.set} as it is published: its first "
                f"row has no {' and no '.join(missing)}"
            )

    def check_overlap(self) -> None:
        """Raises InputError when a problem of an evaluation set is trained on."""
        for key, questions in self._held_out.items():
            seen = [question for question in questions if question in self._training]
            if seen:
                raise InputError(
                    f"{key}: {len(seen)} of its {len(questions)} questions occur in {self._training[seen[0]]}, "
                    f"such as {_short(seen[0])!r}\n"
                    "an evaluation on training data says nothing: remove them from one of the two"
                )


def _origin(section: SourceSection) -> str:
    """A text that is the same for sections whose rows are the same."""
    return section.model_dump_json(exclude={"weight", "rubric", "correct", "judged_by", "prompt_form"})


def _rendering(recipe: Recipe, stage: Stage, section: SourceSection) -> str:
    """A text that is the same where rows are rendered alike; empty where they are not rendered here."""
    if not is_chat(stage.data.template):
        return ""
    keys = {"template", "system", "template_args", "few_shot"}
    said = [each.data.model_dump_json(include=keys) for each in line_of(recipe.stages, stage)]
    return f"{stage.model.path} {said} {section.prompt_form} {kind_of(stage).learns_from}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _data_bytes(name: str) -> int:
    """Size of a data file, of a folder, or of the files that a pattern matches; 0 when there are none."""
    path = Path(name).expanduser()
    if not name:
        return 0
    named = [path] if path.exists() else [Path(file) for file in glob.glob(str(path), recursive=True)]
    files = [file for one in named for file in ([one] if one.is_file() else one.rglob("*")) if file.is_file()]
    return sum(file.stat().st_size for file in files)
