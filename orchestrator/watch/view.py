"""A look at a run, laid out for a terminal of any width from 40 columns on. Everything is text, nothing is markup."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.config.stage_kinds import kind_of
from orchestrator.report.phases import PHASES, phases_of
from orchestrator.results.columns import SHARES, shares
from orchestrator.results.words import age, as_finite, decimal, duration, percent
from orchestrator.run.record import StageRecord
from orchestrator.watch.look import AWAY, RECENT, Look
from orchestrator.watch.signs import Signs
from rollout.errors import visible

LABEL = 9
"""Columns of the words at the left."""
WIDEST = 100
MOST_NOTICES = 4
MOST_MEMBERS = 16
"""Actors of a service that are shown by name; of more only those that are not as they should be."""
COLOURS = {"running": "green", "finished": "green", "stopped": "yellow", "failed": "red", "crashed": "red"}
PHASE_COLOURS = {"generate": "cyan", "score": "magenta", "train": "green", "publish": "yellow", "idle": "red"}
RESULTS = (
    ("reward", "reward/mean", "{:.3f}", ""),
    ("length", "completion/length_mean", "{:,.0f}", " tokens"),
    ("in order", "preference/accuracy", "{:.1%}", " of pairs"),
)
"""Curves that stand above: (name, metric, form of a value, unit)."""
TRAINING = (
    ("loss", "learner/loss", "{:.3g}", ""),
    ("entropy", "policy/entropy", "{:.3f}", " nats/token"),
    ("KL", "kl/ref", "{:.3g}", " nats/token"),
)
"""Curves that stand below, where a low terminal ends."""
RATES = (
    ("throughput/tokens_per_s", "{:,.0f} tokens/s"),
    ("learner/tokens_per_s", "learner alone {:,.0f}/s"),
    ("publish/seconds", "publish {:.2f} s"),
)
STATES = {
    **dict.fromkeys(("serving", "ready"), "green"),
    **dict.fromkeys(("asleep", "starting", "stale", "suspect", "leaving"), "yellow"),
    **dict.fromkeys(("down", "dead"), "red"),
}


def view(look: Look, width: int, signs: Signs) -> RenderableType:
    """Everything about a run, the most telling first, for that many columns."""
    width = min(width, WIDEST)
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=LABEL, no_wrap=True, style="dim")
    grid.add_column(width=max(20, width - LABEL - 1), overflow="fold")
    room = max(20, width - LABEL - 1)
    for label, value in _rows(look, room, signs):
        grid.add_row(label, value)
    return Group(_head(look), grid)


def fitted(picture: RenderableType, console: Console) -> RenderableType:
    """A picture cut to the height of the terminal, and how much of it is missing."""
    lines = console.render_lines(picture, pad=False)
    if len(lines) <= console.height:
        return picture
    shown = lines[: console.height - 1]
    rest = Text(f"{len(lines) - len(shown)} more lines in a higher terminal, or with --once", style="dim")
    return Group(*(Text.assemble(*((part.text, part.style or "") for part in line)) for line in shown), rest)


def _rows(look: Look, room: int, signs: Signs) -> Iterator[tuple[str, RenderableType]]:
    for number, notice in enumerate(list(look.notices())[:MOST_NOTICES]):
        first, *_ = notice.splitlines() or [""]
        yield ("notice" if not number else ""), Text(first, style="yellow")
    if look.run is None:
        yield "", Text("no run in this folder yet (no recipe.toml): waiting for one")
        return
    yield "stages", _stages(look, room, signs)
    stage = look.stage
    if stage is None:
        yield "", Text("nothing recorded yet")
        if look.stands == "running":
            yield from _services(look)
    else:
        yield from _stage(look, stage, room, signs)


def _head(look: Look) -> Text:
    run = look.run
    name = str(run.recipe.get("name", "")) if run else ""
    took = duration(sum(stage.seconds for stage in run.stages)) if run and run.first_time else ""
    last = f"last record {age(max(0.0, look.now - run.last_time))} ago" if run and run.last_time else ""
    where = f" by {visible(str(look.writer))}" if look.writer else ""
    parts = [visible(name), took, last]
    return Text.assemble(
        (visible(str(look.directory)), "bold"),
        "  ",
        (look.stands, f"bold {COLOURS.get(look.stands, '')}"),
        "".join((where, *(f", {part}" for part in parts if part))),
    )


def _stages(look: Look, room: int, signs: Signs) -> Text:
    assert look.run is not None
    text, column = Text(), 0
    for stage in look.run.stages:
        here = stage is look.stage and not stage.ended
        sign, style = (signs.done, "green") if stage.ended else (signs.now, "bold") if here else (signs.later, "dim")
        word = f"{sign} {visible(stage.name)}"
        # A sign stays with its name.
        if column:
            text.append("\n" if column + 2 + len(word) > room else "  ")
            column = 0 if column + 2 + len(word) > room else column + 2
        text.append(word, style=style)
        column += len(word)
    return text


def _stage(look: Look, stage: StageRecord, room: int, signs: Signs) -> Iterator[tuple[str, RenderableType]]:
    yield from _progress(look, stage, room, signs)
    if look.stands == "running" and (phases := look.state.get("phases")):
        names = ", ".join(PHASES.get(name, name) for name in phases)
        yield "now", Text(f"{names}; {duration(as_finite(look.state.get('step_seconds')) or 0.0)} into this step")
    yield from _curves(stage, RESULTS, room, signs)
    yield from _evaluations(stage, room, signs)
    last: Mapping[str, Any] = stage.steps[-1] if stage.steps else {}
    rates = [text.format(value) for key, text in RATES if (value := as_finite(last.get(key))) is not None]
    if look.step_s:
        rates.insert(0, _per_time(look.step_s))
    if rates:
        yield "rates", Text(", ".join(rates))
    if queues := _queues(look, last):
        yield "queues", Text(queues)
    if (mean := as_finite(last.get("staleness/mean"))) is not None:
        yield "staleness", Text(f"{mean:.2g} batches behind, {decimal(last.get('staleness/max'), 0)} at most")
    if look.stands == "running":
        yield from _services(look)
    yield from _phases(stage, room, signs)
    yield from _curves(stage, TRAINING, room, signs)


def _progress(look: Look, stage: StageRecord, room: int, signs: Signs) -> Iterator[tuple[str, RenderableType]]:
    told = look.state.get("progress") if look.stands == "running" else None
    # What the run counts itself is nearer than the last record, and stages without steps have nothing else.
    told = told if isinstance(told, dict) and told.get("title") == stage.name else {}
    done, planned = int(told.get("done", stage.last_step)), int(told.get("total", stage.planned_steps))
    kind = kind_of(stage)
    unit = "steps" if kind.trains else "prompts"
    yield "stage", Text(f"{visible(stage.name)}, {kind.words}")
    if not planned:
        if stage.steps:
            yield "", Text(f"{stage.last_step:,} steps")
        return
    share = done / planned
    words = f" {done:,} of {planned:,} {unit}"
    left = (planned - done) * look.step_s if kind.trains else 0.0
    if left and look.stands == "running":
        words += f", about {duration(left)} left"
    bar = signs.progress(share, max(6, min(30, room - len(words))))
    yield "", Text.assemble((bar, "green"), words)


def _phases(stage: StageRecord, room: int, signs: Signs) -> Iterator[tuple[str, RenderableType]]:
    recent = [one for one in stage.steps if "time/step_s" in one][-RECENT:]
    if not recent:
        return
    times: dict[str, float] = defaultdict(float)
    for one in recent:
        for key, value in one.items():
            if key.startswith("time/") and (seconds := as_finite(value)) is not None:
                times[key.removeprefix("time/").removesuffix("_s")] += seconds / len(recent)
    seconds = times["step"] + times["start"] + times["evaluate"]
    phases = phases_of(replace(stage, times=times, seconds=seconds))
    shown = {name: spent for name, spent in phases.items() if spent >= 0.005 * seconds}
    if not shown:
        return
    longest = max(shown.values())
    words = {name: f" {_brief(spent):>8} {percent(spent / seconds, 0):>5}" for name, spent in shown.items()}
    width = max(4, min(40, room - max(map(len, words.values()))))
    yield "", Text(f"where a step's time goes (mean of the last {len(recent)})", style="dim")
    for name, spent in shown.items():
        bar = signs.bar(spent / longest, width)
        yield PHASES[name], Text.assemble((f"{bar:<{width}}", PHASE_COLOURS.get(name, "")), words[name])


def _queues(look: Look, last: Mapping[str, Any]) -> str:
    now = look.state.get("queues", {}) if look.stands == "running" else {}
    kept = (
        ("groups in flight", now.get("in_flight", last.get("queue/in_flight"))),
        ("waiting for the learner", now.get("waiting", last.get("queue/waiting"))),
        ("completions to score", now.get("to_score", last.get("rewards/waiting"))),
    )
    parts = [f"{value:,.0f} {name}" for name, given in kept if (value := as_finite(given)) is not None]
    return ", ".join(parts)


def _curves(
    stage: StageRecord, curves: Sequence[tuple[str, str, str, str]], room: int, signs: Signs
) -> Iterator[tuple[str, RenderableType]]:
    for name, key, form, unit in curves:
        values = _finite(one.get(key) for one in stage.steps)
        if len(values) > 1:
            yield name, _curve(values, room, signs, form.format, unit)


def _evaluations(stage: StageRecord, room: int, signs: Signs) -> Iterator[tuple[str, RenderableType]]:
    sets: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in stage.evals:
        # The first of the shares that a set has is its most telling one.
        for share, value in list(shares(record).items())[:1]:
            sets[str(record.get("set", "")), share].append(value)
    for (name, key), values in sets.items():
        words = f", {SHARES[key]}"
        yield visible(name)[:LABEL], _curve(values, room, signs, percent, words)


def _curve(values: Sequence[float], room: int, signs: Signs, shown: Any, words: str = "") -> Text:
    ends = shown(values[-1]) if len(values) == 1 else f"{shown(values[0])} {signs.arrow} {shown(values[-1])}"
    text = f" {ends}{words}"
    curve = signs.spark(values, max(4, min(40, room - len(text)))) if len(values) > 1 else ""
    return Text.assemble((curve, "cyan"), text if curve else text.lstrip())


def _services(look: Look) -> Iterator[tuple[str, RenderableType]]:
    for name, service in look.state.get("services", {}).items():
        members = list(service.get("members", ()))
        if not members:
            yield name, Text(str(service.get("state", "")), style="yellow")
            continue
        away = [one for one in members if one.get("state") in AWAY]
        named = members if len(members) <= MOST_MEMBERS else away
        text = Text(f"{len(members) - len(away)} of {len(members)} up{': ' if named else ''}")
        for number, one in enumerate(named):
            text.append(", " if number else "")
            text.append(f"{one.get('name')}\u00a0")
            text.append(str(one.get("state")), style=STATES.get(str(one.get("state")), ""))
            text.append(_load(one))
        yield name, text


def _load(member: Mapping[str, Any]) -> str:
    parts = [f"on {member['node']}"] if member.get("node") else []
    if owed := as_finite(member.get("owed_tokens")):
        parts.append(f"{owed:,.0f} tokens to go at most")
    if held := as_finite(member.get("completions")):
        parts.append(f"{held:,.0f} to score")
    return f" ({', '.join(parts)})" if parts else ""


def _brief(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 0.95 else duration(seconds)


def _per_time(step_s: float) -> str:
    hourly = 3600 / step_s
    return f"{hourly:,.0f} steps/h" if hourly >= 10 else f"{24 * hourly:,.0f} steps/day"


def _finite(values: Any) -> list[float]:
    return [number for value in values if (number := as_finite(value)) is not None]
