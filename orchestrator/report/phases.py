"""Where the time of a run went, by stage and phase, as HTML."""

import html
from collections.abc import Mapping

from orchestrator.report.bars import Segment, bar
from orchestrator.results.words import duration
from orchestrator.run.record import RunRecord, StageRecord

PHASES = {
    "start": "start-up",
    "generate": "generate",
    "score": "score",
    "train": "train",
    "publish": "publish",
    "save": "save",
    "evaluate": "evaluate",
    "idle": "idle",
    "other": "other",
}
"""Phase → its name, in the order of the bars; each is a class of the style sheet."""


def phases_of(stage: StageRecord) -> dict[str, float]:
    """Seconds of a stage by phase, so cut that they add up to the stage.

    Generation and scoring overlap each other and, off-policy, training: what goes on beside training counts as training,
    and what is scored beside generation as generation.
    """
    times = stage.times
    kept = {name: times.get(name, 0.0) for name in ("start", "train", "publish", "save", "evaluate", "idle")}
    alone = max(0.0, times.get("step", 0.0) - kept["train"] - kept["publish"] - kept["save"] - kept["idle"])
    score = min(alone, max(0.0, alone + times.get("overlap", 0.0) - times.get("generate", 0.0)))
    phases = {**kept, "generate": alone - score, "score": score}
    phases["other"] = max(0.0, stage.seconds - sum(phases.values()))
    return {name: phases[name] for name in PHASES}


def time_section(run: RunRecord) -> str:
    """Bars and table; empty where no stage has recorded any times."""
    stages = {stage.name: phases_of(stage) for stage in run.stages if stage.begun}
    if not any(stage.times for stage in run.stages if stage.begun):
        return ""
    total = {phase: sum(phases[phase] for phases in stages.values()) for phase in PHASES}
    # A sliver that nobody could see is no key and no column.
    shown = [phase for phase in PHASES if total[phase] >= 0.002 * sum(total.values())]
    longest = max(map(_sum, stages.values()))
    rows = [_row(name, phases, longest) for name, phases in stages.items()]
    whole = _row("", total, _sum(total)) if len(stages) > 1 else ""
    keys = "".join(f'<li><i class="key layer t-{phase}"></i>{PHASES[phase]}</li>' for phase in shown)
    return (
        '<section id="time"><h2>Where the time went</h2>'
        f'<ul class="legend">{keys}</ul><div class="bars">{whole}{"".join(rows)}</div>'
        f'<p class="hint">{_note(run)}</p>{_table(stages, total, shown)}</section>'
    )


def _row(name: str, phases: Mapping[str, float], scale: float) -> str:
    """A bar whose length is the time on a common scale; without a name that of the whole run."""
    segments = [
        Segment(f"t-{phase}", seconds / scale, f"{PHASES[phase]} {duration(seconds)} ({seconds / _sum(phases):.0%})")
        for phase, seconds in phases.items()
        if seconds > 0
    ]
    css, title = ("", html.escape(name)) if name else (' class="whole"', "whole run")
    return f"<p{css}><span>{title}</span>{bar(segments)}<b>{duration(_sum(phases))}</b></p>"


def _table(stages: Mapping[str, Mapping[str, float]], total: Mapping[str, float], shown: list[str]) -> str:
    head = "".join(f'<th scope="col">{PHASES[phase]} <span class="unit">s</span></th>' for phase in shown)
    whole = [("whole run", total)] if len(stages) > 1 else []
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        f"{''.join(f'<td>{phases[phase]:,.1f}</td>' for phase in shown)}<td>{_sum(phases):,.1f}</td></tr>"
        for name, phases in (*stages.items(), *whole)
    )
    return (
        '<details><summary>Seconds by phase</summary><div class="scroll" tabindex="0" role="region" '
        'aria-label="Seconds by phase"><table><thead><tr><th scope="col">stage</th>'
        f'{head}<th scope="col">together <span class="unit">s</span></th></tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def _note(run: RunRecord) -> str:
    note = (
        "Start-up: waiting for workers, engines and models. Idle: nobody is at work but the control plane. What is generated "
        "beside training counts as training."
    )
    if not any("start" in stage.times for stage in run.stages):
        note += " This run was recorded before start-up and evaluations were timed: they are within idle and other."
    return note


def _sum(phases: Mapping[str, float]) -> float:
    return sum(phases.values()) or 1e-9
