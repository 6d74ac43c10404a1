"""The `rayzero` command: what a user types, mapped to one call each (orchestrator/commands).

This is the one place where an error becomes a line and an exit code: 2 for a mistake of the user's, 1 for a failure
of the system, its files and Ray included (rollout/failures.py), 130 after Ctrl-C. A traceback means a defect of RayZero itself.
"""

import atexit
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from orchestrator.commands.check import check
from orchestrator.commands.compare import compare
from orchestrator.commands.convert import convert
from orchestrator.commands.evaluate import evaluate
from orchestrator.commands.export import export
from orchestrator.commands.info import doctor, recipes
from orchestrator.commands.replay import replay
from orchestrator.commands.runs import report, scale, status, stop, watch
from orchestrator.commands.score import score
from orchestrator.commands.submit import submit
from orchestrator.commands.train import train
from rollout.errors import InputError, visible
from rollout.failures import as_expected

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the number of SIGINT."""


class _Boundary(TyperGroup):
    """All commands, and the boundary where their errors end."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            # Whoever closes the pipe that this writes to has seen enough.
            expected = None if isinstance(error, BrokenPipeError) else as_expected(error)
            if expected is None:
                raise
            typer.echo(f"rayzero: {visible(str(expected))}", err=True)
            raise typer.Exit(2 if isinstance(expected, InputError) else 1) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="rayzero",
    cls=_Boundary,
    help="Reinforcement learning that trains reasoning into language models, on Ray, vLLM and DeepSpeed.",
    epilog="First run: rayzero doctor, then rayzero train arithmetic.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Console entry point."""
    code = run()
    if code == INTERRUPTED:
        # Ctrl-C in the middle of a start leaves native threads of Ray and torch behind, which have crashed the
        # interpreter while it was taken down. What is registered for the exit runs; the taking down does not.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: without the program's name; None: this process's.
    """
    try:
        app(args=None if argv is None else list(argv), prog_name="rayzero")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _show_version(wanted: bool) -> None:
    if wanted:
        from orchestrator.plan.machine import version_of

        typer.echo(f"rayzero {version_of('rayzero') or '(not installed)'}")
        raise typer.Exit


@app.callback()
def rayzero(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


# In the order of --help.
app.command()(train)
app.command()(check)
app.command()(convert)
app.command()(submit)
app.command("eval")(evaluate)
app.command()(score)
app.command()(export)
app.command()(status)
app.command()(watch)
app.command()(scale)
app.command()(stop)
app.command()(report)
app.command()(compare)
app.command()(replay)
app.command()(recipes)
app.command()(doctor)
