"""Which stage takes its model and its data from which: the recipe as a graph. Plain functions over stages."""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, TypeVar

from orchestrator.config.recipe import OWN, Stage
from orchestrator.config.stage_kinds import kind_of
from rollout.errors import InputError, did_you_mean


class Wired(Protocol):
    """A stage, of a recipe or of a run's record, that says where its model comes from."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def model_from(self) -> str: ...


AnyStage = TypeVar("AnyStage", bound=Wired)


def parent_of(stages: Sequence[AnyStage], stage: AnyStage) -> AnyStage | None:
    """The stage whose model this one starts from; None: from its own `model` section."""
    earlier = _before(stages, stage)
    if stage.model_from == OWN:
        return None
    if stage.model_from:
        return next((other for other in earlier if other.name == stage.model_from), None)
    return next((other for other in reversed(earlier) if kind_of(other).leaves == "policy"), None)


def line_of(stages: Sequence[AnyStage], stage: AnyStage) -> list[AnyStage]:
    """The stages whose models one another start from, up to this one."""
    line = [stage]
    while (parent := parent_of(stages, line[0])) is not None:
        line.insert(0, parent)
    return line


def root_of(stages: Sequence[AnyStage], stage: AnyStage) -> AnyStage:
    """The stage with which a stage's line of models begins. Stages of one root have models of one shape."""
    return line_of(stages, stage)[0]


def data_parents(stage: Stage) -> list[str]:
    """Stages whose rows this one takes."""
    return [section.stage for section in stage.data.sources.values() if section.stage]


def check_wiring(stages: Sequence[Stage]) -> None:
    """Raises InputError with the first thing that does not fit together."""
    names = [stage.name for stage in stages]
    for stage in stages:
        if names.count(stage.name) > 1:
            raise InputError(f"two stages are called {stage.name!r}")
        if stage.name == OWN:
            raise InputError(f"a stage cannot be called {OWN!r}: model_from = {OWN!r} means the model section")
        earlier = _before(stages, stage)
        if stage.model_from not in ("", OWN):
            _check_known(stage, "model_from", stage.model_from, earlier, "policy")
        for name, section in stage.data.sources.items():
            if section.stage:
                key = f"data.sources.{name}.stage"
                _check_known(stage, key, section.stage, earlier, "rows")
        _check_model(stages, stage)


def _check_model(stages: Sequence[Stage], stage: Stage) -> None:
    parent = parent_of(stages, stage)
    if parent is None:
        if not stage.model.path and not stage.model.build.tokenizer:
            where = "" if stage is stages[0] else f"stage {stage.name!r}: "
            raise InputError(f"{where}model.path is empty: give a Hugging Face model folder or hub id (model.path=…)")
        return
    root = root_of(stages, stage)
    if (stage.model.path, stage.model.build) != (root.model.path, root.model.build):
        raise InputError(
            f"stage {stage.name!r} has a model of its own, but it starts from stage {parent.name!r}: "
            f'remove its model.path or model.build, or set model_from = "{OWN}"'
        )


def _check_known(
    stage: Stage, key: str, name: str, earlier: Sequence[Stage], leaves: Literal["policy", "rows"]
) -> None:
    """`name`, that `key` of a stage gives, is an earlier stage that leaves this."""
    found = next((other for other in earlier if other.name == name), None)
    if found is None:
        known = [other.name for other in earlier]
        raise InputError(
            f"stage {stage.name!r}: {key} = {name!r} is no stage before it{did_you_mean(name, known)}; "
            f"there is: {', '.join(known) or 'none'}"
        )
    if kind_of(found).leaves != leaves:
        what = "model to start from" if leaves == "policy" else "rows"
        raise InputError(f"stage {stage.name!r}: {key} = {name!r}: a stage of kind {found.kind} leaves no {what}")


def _before(stages: Sequence[AnyStage], stage: AnyStage) -> list[AnyStage]:
    return list(stages[: [other.name for other in stages].index(stage.name)])


def select_stages(stages: Sequence[Stage], *, first: str = "", last: str = "", only: str = "") -> list[Stage]:
    """The stages from `first` to `last`, or `only` one. Raises InputError for a name that is none of theirs."""
    names = [stage.name for stage in stages]
    for option, name in (("--from", first), ("--until", last), ("--only", only)):
        if name and name not in names:
            raise InputError(
                f"{option} {name}: no stage of that name{did_you_mean(name, names)}; stages: {', '.join(names)}"
            )
    if only:
        if first or last:
            raise InputError("--only is one stage; leave out --from and --until")
        first = last = only
    begin = names.index(first) if first else 0
    end = names.index(last) if last else len(names) - 1
    if begin > end:
        raise InputError(f"--from {first} comes after --until {last}; stages: {', '.join(names)}")
    return list(stages[begin : end + 1])


def missing_before(stages: Sequence[Stage], selected: Sequence[Stage], finished: set[str]) -> Iterator[str]:
    """A line for each stage that `selected` needs, that is not among them and not finished."""
    will_be = finished | {stage.name for stage in selected}
    for stage in selected:
        parent = parent_of(stages, stage)
        for name in [*([parent.name] if parent else []), *data_parents(stage)]:
            if stage.name not in finished and name not in will_be:
                yield f"stage {stage.name} takes from stage {name}, which is not finished"
