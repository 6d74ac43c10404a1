"""`rayzero recipes` and `doctor`: what ships, and what this machine can do."""

from typing import Annotated

import typer


def recipes(
    keys: Annotated[bool, typer.Option("--keys", help="Print every key that a recipe may hold, as Markdown.")] = False,
    rewards: Annotated[bool, typer.Option("--rewards", help="Print the reward functions and their arguments.")] = False,
) -> None:
    """List the shipped recipes, every key of a recipe, or the reward functions that a rubric may name."""
    from orchestrator.config.load import shipped_recipes

    if rewards:
        from rewards.builtin import describe

        for name, arguments, summary in describe():
            typer.echo(f"{name}: {summary}.\n    {arguments}")
        return
    if keys:
        from orchestrator.config.key_table import markdown

        typer.echo("\n".join(markdown()))
        return
    shipped = shipped_recipes()
    width = max(map(len, shipped))
    for name, description in shipped.items():
        typer.echo(f"{name:<{width}}  {description}")


def doctor() -> None:
    """Show what this machine can do, and what is missing (exit code 1)."""
    from orchestrator.checks.doctor import examine

    findings = examine()
    width = max(len(finding.what) for finding in findings)
    colors = {"ok": typer.colors.GREEN, "note": typer.colors.YELLOW, "missing": typer.colors.RED}
    for finding in findings:
        state = typer.style(f"{finding.state:<7}", fg=colors[finding.state])
        typer.echo(f"{state}  {finding.what:<{width}}  {finding.value}")
        if finding.way_out:
            typer.echo(f"{'':<7}  {'':<{width}}  → {finding.way_out}")
    missing = [finding.what for finding in findings if finding.state == "missing"]
    typer.echo(f"\nmissing: {', '.join(missing)}" if missing else "\nnothing is missing")
    raise typer.Exit(1 if missing else 0)
