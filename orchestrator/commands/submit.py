"""`rayzero submit`: run a recipe as a job of a Ray cluster, and list such jobs."""

import time
from typing import Annotated

import typer

from orchestrator.commands.arguments import Overrides, Seed, load
from rollout.errors import InputError

RecipeOrNone = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A shipped recipe by name, a TOML file, or the folder of a run.")
]
Address = Annotated[
    str,
    typer.Option(
        metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard, such as http://HOST:8265."
    ),
]
Follow = Annotated[
    bool, typer.Option("--follow", help="Stream the log until the job ends; Ctrl-C leaves the job running.")
]
Listed = Annotated[bool, typer.Option("--list", help="Show the cluster's jobs with their runs, and submit none.")]
RunFolder = Annotated[
    str,
    typer.Option(
        "--run", metavar="DIR", help="Folder of the run, seen by all nodes. [default, here only: runs/<name>]"
    ),
]
WorkingFolder = Annotated[
    str, typer.Option(metavar="DIR", help="Folder to send along; relative paths of the recipe are inside it.")
]
Variables = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME[=VALUE]", help="Variable of the job; NAME alone: with the value it has here."),
]
Pip = Annotated[
    list[str] | None,
    typer.Option(metavar="PACKAGE", help="Package, or file of them (.txt), that pip installs for the job."),
]
Uv = Annotated[list[str] | None, typer.Option(metavar="PACKAGE", help="The same by uv.")]
Command = Annotated[str, typer.Option(metavar="CMD", help="How rayzero is called on the cluster. [default: rayzero]")]


def submit(
    address: Address,
    recipe: RecipeOrNone = "",
    overrides: Overrides = None,
    follow: Follow = False,
    listed: Listed = False,
    run_dir: RunFolder = "",
    working_dir: WorkingFolder = "",
    variables: Variables = None,
    pip: Pip = None,
    uv: Uv = None,
    command: Command = "",
    seed: Seed = None,
) -> None:
    """Run a recipe as a job of a Ray cluster.

    The nodes of the cluster need rayzero installed. On this machine (http://127.0.0.1:8265) relative paths mean what
    they mean here. On another one the job gets the resolved recipe and nothing else: give data and model by absolute
    paths or hub ids, or send a folder along with --working-dir; --run must be absolute.

    The same command again continues the run, once its job has ended; with --follow it shows a job that still goes on.
    rayzero stop RUN --address URL ends it. A value that is a secret is given by --env NAME: it is in no recipe, log,
    run folder or command line.

    The cluster's token is read from RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token; for a cluster
    without tokens set RAY_AUTH_MODE=disabled.
    """
    from orchestrator.checks.preflight import preflight
    from orchestrator.cluster.submit import Wish, checked_address, is_loopback
    from orchestrator.cluster.submit import submit as submit_run
    from orchestrator.config.load import run_folder

    address = checked_address(address)
    if listed:
        _list(address)
        return
    if not recipe:
        raise InputError("RECIPE is missing: name a recipe to submit, or --list to see the cluster's jobs")
    resolved = load(recipe, overrides, seed=seed)
    if is_loopback(address) and not working_dir:
        # The cluster is this machine: what would fail there can be found here.
        preflight(load(recipe, overrides, "auto", seed))
    wish = Wish(
        run_dir=run_dir or str(run_folder(recipe) or ""),
        working_dir=working_dir,
        command=command,
        variables=variables or (),
        packages={"pip": pip or (), "uv": uv or ()},
        follow=follow,
    )
    settings = [*(overrides or ()), *([] if seed is None else [f"seed={seed}"])]
    raise typer.Exit(submit_run(resolved, name=recipe, overrides=settings, address=address, wish=wish))


def _list(address: str) -> None:
    """The jobs of the cluster that have a run, the newest first."""
    from orchestrator.cluster.jobs import connect, run_jobs
    from orchestrator.results.words import age

    now = time.time()
    rows = [(each.job, each.state, age(max(0.0, now - each.start)), each.run) for each in run_jobs(connect(address))]
    if not rows:
        typer.echo(f"no job of {address} trains a run")
        return
    rows.append(("job", "state", "age", "run"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in reversed(rows):
        typer.echo("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]))
