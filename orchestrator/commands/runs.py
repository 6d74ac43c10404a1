"""`rayzero status`, `watch`, `scale`, `stop` and `report`: what is done with a run in its folder."""

from pathlib import Path
from typing import Annotated

import typer

from rollout.errors import InputError, visible

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run.")]
StoredRun = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or its URI in a storage.")]


def status(
    run_dir: StoredRun,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="What became of every prompt: the sums, and what does not add up.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            help="Ask the run what it waits for: open waits, queues, members, ranks, stacks of tasks and threads.",
        ),
    ] = False,
) -> None:
    """Show where a run stands: its stages, its last step, and whether it is going on."""
    from orchestrator.results.status import account, describe
    from orchestrator.run.reading import reading

    with reading(run_dir, samples=ledger) as (folder, copy):
        lines, sound = account(folder) if ledger else (describe(folder), True)
        for line in lines:
            typer.echo(copy.named(line) if copy else line)
        if debug and not ledger:
            from orchestrator.run.debug import ask_what_it_waits_for, describe_waits

            if copy:
                raise InputError(
                    f"--debug: asks the run itself; name its folder, on a host that sees it, in place of {run_dir}"
                )
            for line in describe_waits(ask_what_it_waits_for(folder)):
                typer.echo(visible(line))
    if not sound:
        raise typer.Exit(1)


def watch(
    run_dir: StoredRun,
    once: Annotated[
        bool, typer.Option("--once", help="Show it once and end, as where the output is no terminal.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.2, max=3600, metavar="S", help="Seconds between two looks.")] = 2.0,
) -> None:
    """Watch a run: phases, rates, queues, curves, replicas. Reads the folder alone, on any host that sees it.

    It ends when the run is finished, and by Ctrl-C, which the run does not notice.
    """
    from orchestrator.run.reading import reading
    from orchestrator.watch.live import watch_run

    with reading(run_dir) as (folder, copy):
        watch_run(folder, once=once, every_s=every, copy=copy)


def scale(
    run_dir: RunArgument,
    sizes: Annotated[
        list[str], typer.Argument(metavar="SERVICE=N", help="Number of workers, such as rollout=2 rewards=4.")
    ],
) -> None:
    """Change the number of engines (rollout), reward workers (rewards) or ranks (learner) of a run while it goes on."""
    from orchestrator.run.control import ask_for

    wanted = {}
    for size in sizes:
        service, _, count = size.partition("=")
        if service not in ("rewards", "rollout", "learner") or not count.isdecimal() or int(count) < 1:
            raise InputError(f"{size!r}: give SERVICE=N with N ≥ 1, such as rewards=4 or rollout=2")
        wanted[service] = int(count)
    for service, (before, after) in ask_for(Path(run_dir), wanted).items():
        typer.echo(f"{service}: {before} → {after} workers")


def stop(
    run_dir: RunArgument,
    address: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Dashboard of the cluster whose job trains the run, where its folder is not seen from here.",
        ),
    ] = "",
) -> None:
    """End a run as Ctrl-C does, from any host that sees its folder; it can be continued. Ends when the run has ended."""
    if address:
        from orchestrator.cluster.jobs import stop_job
        from orchestrator.cluster.submit import checked_address, run_on

        address = checked_address(address)
        stopped = stop_job(address, run_on(address, run_dir))
        typer.echo(f"stopped {stopped}; submit it again to continue")
        return
    from orchestrator.run.control import stop_run

    typer.echo(f"{stop_run(Path(run_dir))} has ended; continue with: rayzero train {run_dir}")


def report(
    run_dirs: Annotated[list[str], typer.Argument(metavar="RUN", help="Folder of a run, finished or not, or its URI.")],
    table: Annotated[
        bool,
        typer.Option("--table", help="Print the table as Markdown instead; of several runs (seeds) mean and range."),
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the report in a browser, as the run stands; Ctrl-C ends it.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port of --serve; 0: a free one.")] = 8360,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDR", help="Address that --serve listens on; whoever reaches another one may read the report."
        ),
    ] = "127.0.0.1",
) -> None:
    """Write the HTML report of a run, and its table as table.md and table.json. The page of a run that goes on loads itself again.

    Of a URI the report is written here, as NAME-report.html.
    """
    import shutil

    from orchestrator.report.page import write_report
    from orchestrator.results.table import results_of
    from orchestrator.results.table_text import markdown, markdown_of_runs
    from orchestrator.run.reading import reading
    from orchestrator.run.record import read_run

    if serve:
        if table or len(run_dirs) != 1:
            raise InputError("--serve: shows the report of one run; give one folder, and no --table")
        from orchestrator.report.server import ReportServer, serve_report

        with reading(run_dirs[0], samples=True) as (folder, copy):
            serve_report(ReportServer(folder, host, port, copy), typer.echo)
        return
    if table:
        tables = []
        for run_dir in run_dirs:
            with reading(run_dir) as (folder, _):
                tables.append(results_of(read_run(folder)))
        typer.echo(markdown(tables[0]) if len(tables) == 1 else markdown_of_runs(tables), nl=False)
        return
    for run_dir in run_dirs:
        with reading(run_dir, samples=True) as (folder, copy):
            path = write_report(folder)
        if copy:  # the folder is nobody's
            path = Path(shutil.copy(path, f"{folder.name}-report.html"))
        typer.echo(str(path))
