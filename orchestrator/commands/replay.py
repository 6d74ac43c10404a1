"""`rayzero replay`: train the recorded steps of a run again."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.runs import RunArgument
from rollout.errors import InputError


def replay(
    run_dir: RunArgument,
    stage: Annotated[str, typer.Option(metavar="STAGE", help="A grpo stage. [default: the newest]")] = "",
    first: Annotated[int, typer.Option("--from", min=1, metavar="N", help="Begin with this step.")] = 1,
    last: Annotated[
        int | None, typer.Option("--until", min=1, metavar="N", help="End after this step. [default: the newest]")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Exit with 1 unless every step gives the weights that the run had.")
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="learner.KEY=VALUE", help="Train with another setting; repeat for several."),
    ] = None,
) -> None:
    """Train the recorded steps of a run again, without engines, and compare the weights step by step.

    Nothing of the run is written. --with learner.policy_loss=gspo trains the recorded batches with another loss, and
    prints its figures beside those of the run.
    """
    from orchestrator.replay import describe_step
    from orchestrator.replay import replay as train_again

    if not (Path(run_dir) / "recipe.toml").is_file():
        raise InputError(f"{run_dir}: holds no run (no recipe.toml in it)")
    for change in changes or ():
        if not change.strip().startswith("learner."):
            raise InputError(f"--with {change!r}: only keys of the learner can change: the batches are recorded")
    if verify and changes:
        raise InputError("--verify: with other settings (--with) the weights are other ones")
    done = train_again(
        Path(run_dir), stage, first, last, changes or (), lambda one: typer.echo(describe_step(one, bool(changes)))
    )
    if changes:
        return
    wrong = [one.step for one in done if one.same is False]
    unknown = sum(one.same is None for one in done)
    typer.echo(
        f"{len(done)} steps trained again: {len(done) - len(wrong) - unknown} with the same weights, {len(wrong)} with others"
        + (f", {unknown} of which the run did not say" if unknown else "")
    )
    if verify and (wrong or unknown):
        raise typer.Exit(1)
