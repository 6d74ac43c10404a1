"""The curves of a stage: which keys of its step records become which chart, and what a reader should see in it."""

import math
from dataclasses import dataclass
from typing import Literal

from orchestrator.config.stage_kinds import kind_of
from orchestrator.report.charts import Chart, DrawingGroup, Series, draw_all, thin
from orchestrator.run.record import StageRecord, as_number


@dataclass(frozen=True, slots=True, kw_only=True)
class _Curve:
    """How the keys of step records become one chart."""

    title: str
    lines: tuple[tuple[str, str], ...]
    """(key, label) of every series."""
    hint: str
    unit: str = ""
    times: float = 1.0
    """Factor from the recorded unit to the shown one."""
    from_zero: bool = True
    learns_from: Literal["", "prompts", "examples", "pairs"] = ""
    """What the stages that have this chart learn from; empty: all have it."""
    rest_of: str = ""
    """Further series: every other key with this prefix."""
    layers: tuple[str, ...] = ()
    """Keys that are stacked as areas."""


CURVES: tuple[tuple[str, tuple[_Curve, ...]], ...] = (
    (
        "Learning",
        (
            _Curve(
                title="Reward",
                lines=(("reward/mean", "reward"),),
                rest_of="reward/",
                from_zero=False,
                hint="The mean reward should climb; its parts, before weighting, say what it climbs on.",
            ),
            _Curve(
                title="Loss",
                unit="nats per token",
                lines=(("learner/loss", "loss"),),
                rest_of="held_out_loss/",
                learns_from="examples",
                hint="Should fall, then flatten; a late rise means that the learning rate is too high. Held-out loss that "
                "rises while the loss falls: the model learns the examples by heart.",
            ),
            _Curve(
                title="Loss",
                unit="nats per pair",
                lines=(("learner/loss", "loss"),),
                learns_from="pairs",
                hint="Falls from 0.69, where a model cannot tell two responses apart.",
            ),
            _Curve(
                title="Pairs in order",
                unit="%",
                times=100,
                lines=(("preference/accuracy", "training pairs"),),
                hint="The better response scores higher; the held-out pairs in the table below say what it is worth.",
            ),
            _Curve(
                title="Margin",
                lines=(
                    ("preference/margin", "better − worse"),
                    ("preference/chosen_reward", "better"),
                    ("preference/rejected_reward", "worse"),
                ),
                hint="Difference of scores. In DPO also both implicit rewards: often both fall, the worse one faster.",
            ),
            _Curve(
                title="Completion length",
                unit="tokens",
                lines=(("completion/length_mean", "mean length"),),
                hint="Growth together with reward is reasoning; growth without it is rambling.",
            ),
            _Curve(
                title="Wasted samples",
                unit="%",
                times=100,
                lines=(
                    ("groups/no_signal_share", "groups without signal"),
                    ("completion/truncated_share", "truncated completions"),
                ),
                hint="Without signal: all rewards of a group are equal, its problem is too hard or too easy. "
                "Truncated: cut at the token limit.",
            ),
        ),
    ),
    (
        "Policy",
        (
            _Curve(
                title="KL to the reference",
                unit="nats per token",
                lines=(("kl/ref", "KL"),),
                hint="How far the policy has moved from where the stage began; a slow rise is healthy.",
            ),
            _Curve(
                title="Entropy",
                unit="nats per token",
                lines=(("policy/entropy", "entropy"),),
                hint="How undecided the policy is, on what trains; a fast drop to zero means that it has stopped exploring.",
            ),
            _Curve(
                title="Clipped tokens",
                unit="%",
                times=100,
                lines=(("policy/clip_fraction_low", "below"), ("policy/clip_fraction_high", "above")),
                hint="Tokens whose update was cut off by the clip range; a few per cent is normal.",
            ),
            _Curve(
                title="Loss",
                lines=(("learner/loss", "loss"),),
                learns_from="prompts",
                from_zero=False,
                hint="Hovers near zero by construction; the reward, not the loss, shows progress.",
            ),
            _Curve(
                title="Gradient norm",
                lines=(("learner/grad_norm", "gradient norm"),),
                hint="Before clipping; spikes mark batches that would have thrown the model off.",
            ),
            _Curve(
                title="Learning rate",
                lines=(("learner/lr", "learning rate"),),
                hint="The schedule as it was applied.",
            ),
        ),
    ),
    (
        "Sampler against learner",
        (
            _Curve(
                title="Staleness",
                unit="policy versions",
                lines=(("staleness/mean", "mean"), ("staleness/max", "largest")),
                hint="Age of the trained tokens; never above the recipe's max_staleness, 0 is exactly on-policy.",
            ),
            _Curve(
                title="Mismatch, KL",
                unit="nats per token",
                lines=(("mismatch/kl", "KL"),),
                hint="Sampler and learner compute the same probabilities in two ways; should be tiny and level.",
            ),
            _Curve(
                title="Mismatch, largest",
                unit="nats",
                lines=(("mismatch/max", "largest"),),
                hint="The same for the worst token of the batch.",
            ),
            _Curve(
                title="Audit after a publish",
                unit="nats",
                lines=(("audit/mean_diff", "mean"), ("audit/high_diff", "99th percentile")),
                hint="Engine against learner on fresh completions; a jump means that the engines hold other weights.",
            ),
            _Curve(
                title="Importance weight",
                lines=(("importance/mean", "mean weight"),),
                from_zero=False,
                hint="Corrects for the mismatch; stays near 1 when sampler and learner agree.",
            ),
            _Curve(
                title="Capped importance weights",
                unit="% of tokens",
                times=100,
                lines=(("importance/capped_share", "capped"),),
                hint="Tokens whose weight hit the cap; more than a few per cent biases the update.",
            ),
        ),
    ),
    (
        "Speed",
        (
            _Curve(
                title="Throughput",
                unit="tokens/s",
                lines=(("throughput/tokens_per_s", "tokens/s"),),
                hint="Should be level; it moves with completion length and with the number of replicas.",
            ),
            _Curve(
                title="Time by phase",
                unit="s per step",
                learns_from="prompts",
                lines=(
                    ("time/generate_s", "generate"),
                    ("time/score_s", "score"),
                    ("time/train_s", "train"),
                    ("time/publish_s", "publish"),
                    ("time/save_s", "save"),
                    ("time/idle_s", "idle"),
                    ("time/overlap_s", "overlap"),
                    ("time/step_s", "whole step"),
                ),
                layers=(
                    "time/generate_s",
                    "time/score_s",
                    "time/train_s",
                    "time/publish_s",
                    "time/save_s",
                    "time/idle_s",
                ),
                hint="Overlap is generation going on during training: the stack may then stand above the whole step. "
                "Start-up and evaluations are in none of it.",
            ),
            _Curve(
                title="Learner waits for data",
                unit="s per step",
                learns_from="prompts",
                lines=(("time/wait_s", "wait"),),
                hint="The learner stands idle until a batch is whole; more rollout replicas or staleness shorten it.",
            ),
            _Curve(
                title="Learner utilisation",
                unit="% of the measured peak",
                times=100,
                lines=(("learner/mfu", "utilisation"),),
                hint="Model FLOPs of a batch over what the device does in a bare matrix product; small models stay low.",
            ),
            _Curve(
                title="Memory of a learner rank",
                unit="GB at most",
                lines=(("learner/memory_peak_gb", "memory"),),
                hint="Should be level; a slow climb is a leak.",
            ),
            _Curve(
                title="Publish",
                unit="s",
                lines=(("publish/seconds", "whole publish"), ("publish/pause_s", "engines paused")),
                hint="Handing new weights to the engines; the pause is what generation loses.",
            ),
        ),
    ),
)


def curves_of(stage: StageRecord, limit: int) -> tuple[DrawingGroup, ...]:
    """All charts of a stage, under the headings of their groups; empty where nothing was recorded.

    `limit`: most points of a series.
    """
    kind = kind_of(stage)
    learns_from = kind.learns_from if kind.trains else "prompts"
    groups = []
    for heading, curves in CURVES:
        drawings = draw_all(_chart(curve, stage, limit) for curve in curves if curve.learns_from in ("", learns_from))
        if drawings:
            groups.append(DrawingGroup(title=heading, drawings=drawings))
    if learns_from != "prompts":
        together = tuple(drawing for group in groups for drawing in group.drawings)
        return (DrawingGroup(title="", drawings=together),) if together else ()
    return tuple(groups)


def _chart(curve: _Curve, stage: StageRecord, limit: int) -> Chart:
    """The chart of a curve; without points where the stage did not record its keys."""
    lines = list(curve.lines)
    if curve.rest_of:
        known = {key for key, _ in lines}
        keys = sorted({key for record in stage.steps for key in record if key.startswith(curve.rest_of)} - known)
        lines += [(key, key.removeprefix(curve.rest_of)) for key in keys]
    series, not_finite = [], 0
    for key, label in lines:
        values = [(float(r["step"]), y) for r in stage.steps if (y := as_number(r.get(key))) is not None]
        points = [(x, y * curve.times) for x, y in values if math.isfinite(y)]
        not_finite += len(values) - len(points)
        style: Literal["line", "dashed", "layer"] = "line"
        if curve.layers:
            style = "layer" if key in curve.layers else "dashed" if "overlap" in key else "line"
            if style == "layer" and not any(y for _, y in points):
                continue
        series.append(Series(label=label, points=tuple(thin(points, limit, largest="/max" in key)), style=style))
    return Chart(
        title=curve.title,
        unit=curve.unit,
        hint=curve.hint,
        series=tuple(series),
        from_zero=curve.from_zero,
        not_finite=not_finite,
    )
