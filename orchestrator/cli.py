"""The `rayzero` command: what a user types, mapped to one call each. Nothing heavy is imported before it is needed.

This is the one place where an error becomes a line and an exit code: 2 for a mistake of the user's, 1 for a failure
of the system, 130 after Ctrl-C. A traceback means a defect of RayZero itself.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from typer.core import TyperGroup

from rollout.errors import InputError, ServiceError

if TYPE_CHECKING:
    from orchestrator.config import Recipe, Stage


class _Boundary(TyperGroup):
    """All commands, and the boundary where their errors end."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            typer.echo(f"rayzero: {error}", err=True)
            raise typer.Exit(2) from None
        except ServiceError as error:
            typer.echo(f"rayzero: {error}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


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

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A shipped recipe by name, a TOML file, or the folder of a run.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings over the recipe's: learner.lr=1e-5 in every stage, stages.NAME.learner.lr=1e-5 in one.",
    ),
]
EvalOverrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings, such as rollout.replicas=2 or eval.max_tokens=2048."),
]
Seed = Annotated[int | None, typer.Option(min=0, metavar="N", help="Seed of every random choice (key: seed).")]


def main() -> None:
    """Console entry point."""
    sys.exit(run())


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: without the program's name; None: this process's.
    """
    try:
        app(args=None if argv is None else list(argv), prog_name="rayzero")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _show_version(wanted: bool) -> None:
    if wanted:
        from orchestrator.doctor import version_of

        typer.echo(f"rayzero {version_of('rayzero') or '(not installed)'}")
        raise typer.Exit


@app.callback()
def rayzero(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


# --- train, check, submit


@app.command()
def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    run_dir: Annotated[
        str, typer.Option("--run", metavar="DIR", help="Folder of the run. [default: runs/<recipe name>]")
    ] = "",
    address: Annotated[
        str, typer.Option(metavar="ADDR", help="Ray cluster to join: auto, HOST:PORT or ray://HOST:PORT.")
    ] = "",
    seed: Seed = None,
    first: Annotated[str, typer.Option("--from", metavar="STAGE", help="Begin with this stage.")] = "",
    last: Annotated[str, typer.Option("--until", metavar="STAGE", help="End after this stage.")] = "",
    only: Annotated[str, typer.Option(metavar="STAGE", help="Run no other stage.")] = "",
) -> None:
    """Train by a recipe, or continue the run that is in its folder.

    A run is continued when its folder holds one: finished stages are not run again, and stages that have begun must have
        the same settings, but loop.steps of an unfinished one may grow, and cluster.* and what it is computed on, such as
    learner.ranks, learner.zero_stage and rollout.replicas, may differ. RECIPE may be that folder itself: rayzero train
    runs/arithmetic
    """
    from orchestrator.preflight import preflight
    from orchestrator.run_dir import check_run_dir
    from orchestrator.wiring import select

    resolved = _load(recipe, overrides, address, seed)
    selected = select(resolved.stages, first=first, last=last, only=only)
    folder = _run_folder(recipe)
    target = Path(run_dir) if run_dir else folder or Path("runs") / resolved.name
    continued = check_run_dir(resolved, target)
    for note in preflight(resolved):
        typer.echo(f"note: {note}")
    # Said before Ray and torch are imported, which takes a while on a fresh machine.
    typer.echo(f"{'continuing' if continued else 'starting'} the run in {target}")
    from orchestrator.pipeline import train as train_run

    try:
        train_run(resolved, target, selected)
    except ServiceError as error:
        raise ServiceError(f"{error}\ncontinue with: rayzero train {target}") from error


@app.command()
def check(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    full: Annotated[
        bool, typer.Option("--full", help="Print every setting, as TOML, instead of what differs from the defaults.")
    ] = False,
) -> None:
    """Check a recipe and everything it needs; start nothing.

    Reads the data, the model folder and the machine, and shows the resolved recipe, what it places where, and an
    estimate of its memory.
    """
    from orchestrator.config import to_toml
    from orchestrator.preflight import preflight

    resolved = _load(recipe, overrides)
    notes = preflight(resolved)
    if full:
        import tomli_w

        typer.echo(tomli_w.dumps(to_toml(resolved)))
    else:
        typer.echo("\n".join(_differences(resolved)))
    # In front of TOML these lines are comments, so that the output is a recipe again.
    for line in ("", *_placement(resolved), *(f"note: {note}" for note in notes)):
        typer.echo(f"# {line}".rstrip() if full else line)


@app.command()
def submit(
    recipe: RecipeArgument,
    address: Annotated[
        str,
        typer.Option(
            metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard, such as http://HOST:8265."
        ),
    ],
    overrides: Overrides = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Stream the log until the job ends; Ctrl-C leaves the job running.")
    ] = False,
    run_dir: Annotated[
        str,
        typer.Option(
            "--run", metavar="DIR", help="Folder of the run, seen by all nodes. [default, here only: runs/<name>]"
        ),
    ] = "",
    working_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Folder to send along; relative paths of the recipe are inside it.")
    ] = "",
    command: Annotated[
        str, typer.Option(metavar="CMD", help="How rayzero is called on the cluster. [default: rayzero]")
    ] = "",
    seed: Seed = None,
) -> None:
    """Run a recipe as a job of a Ray cluster.

    The nodes of the cluster need rayzero installed. On this machine (http://127.0.0.1:8265) relative paths mean what
    they mean here. On another one the job gets the resolved recipe and nothing else: give data and model by absolute
    paths or hub ids, or send a folder along with --working-dir; --run must be absolute.

    The cluster's token is read from RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token; for a cluster
    without tokens set RAY_AUTH_MODE=disabled.
    """
    from orchestrator.preflight import preflight
    from orchestrator.submit import checked_address, is_loopback
    from orchestrator.submit import submit as submit_run

    resolved = _load(recipe, overrides, seed=seed)
    if is_loopback(checked_address(address)) and not working_dir:
        # The cluster is this machine: what would fail there can be found here.
        preflight(_load(recipe, overrides, "auto", seed))
    settings = [*(overrides or ()), *([] if seed is None else [f"seed={seed}"])]
    code = submit_run(
        resolved,
        name=_recipe_name(recipe),
        overrides=settings,
        address=address,
        run_dir=run_dir or str(_run_folder(recipe) or ""),
        working_dir=working_dir,
        command=command,
        follow=follow,
    )
    raise typer.Exit(code)


def _run_folder(recipe: str) -> Path | None:
    """The folder of a run, where that is what the user named; a shipped recipe's name is never a folder."""
    folder = Path(recipe)
    return folder if ("/" in recipe or recipe in (".", "..")) and (folder / "recipe.toml").is_file() else None


def _recipe_name(recipe: str) -> str:
    """What `load_recipe` takes."""
    folder = _run_folder(recipe)
    if folder is not None:
        return str(folder / "recipe.toml")
    if "/" in recipe and Path(recipe).is_dir():
        raise InputError(f"{recipe} is a folder without a run (no recipe.toml); name a recipe or a TOML file")
    return recipe


def _load(recipe: str, overrides: Sequence[str] | None, address: str = "", seed: int | None = None) -> "Recipe":
    from orchestrator.config import load_recipe

    settings = [*(overrides or ())]
    if address:
        settings.append(f"cluster.address={json.dumps(address)}")
    if seed is not None:
        settings.append(f"seed={seed}")
    return load_recipe(_recipe_name(recipe), settings)


def _differences(recipe: "Recipe") -> list[str]:
    """The resolved recipe, without what is as by default; first what holds in all stages."""
    from orchestrator.keys import flat
    from orchestrator.schedule import Schedule

    head = f"recipe {recipe.name}: {recipe.description}" if recipe.description else f"recipe {recipe.name}"
    lines = [head, f"  seed = {recipe.seed}"]
    lines += _settings(flat({"cluster": recipe.cluster.model_dump(mode="json", exclude_defaults=True)}))
    dumps = (stage.model_dump(mode="json", exclude_defaults=True, exclude={"schedule"}) for stage in recipe.stages)
    stages = [flat(dump) for dump in dumps]
    shared = {
        key: value
        for key, value in stages[0].items()
        if key not in ("name", "kind") and all(key in stage and stage[key] == value for stage in stages)
    }
    if len(stages) > 1 and shared:
        lines += ["all stages", *_settings(shared)]
    for stage, settings in zip(recipe.stages, stages, strict=True):
        own = {key: value for key, value in settings.items() if key not in ("name", "kind")}
        if len(stages) > 1:
            own = {key: value for key, value in own.items() if key not in shared}
        lines += [f"stage {stage.name} ({stage.kind})", *_settings(own)]
        lines += [f"  from step {step}: {change}" for step, change in Schedule(stage).changes.items()]
    return lines


def _settings(values: dict[str, Any]) -> list[str]:
    return [f"  {key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]


def _placement(recipe: "Recipe") -> list[str]:
    """Where every stage puts its processes, and how much memory they take."""
    from orchestrator import doctor
    from orchestrator.sizes import adapter_parameters, memory, parameters, stage_places

    here = not recipe.cluster.address
    stages_of: dict[str, list[str]] = {}
    for stage in recipe.stages:
        cores, gpus = stage_places(stage)
        places = f"{cores:g} CPU of {doctor.cpu_count()} here" if here else f"{cores:g} CPU on the cluster"
        if here and doctor.on_gpus():
            places += f", {gpus} GPU of {len(doctor.gpu_names())} here"
        stages_of.setdefault(f"places  {_parts(stage)} = {places}", []).append(stage.name)
        sizes = memory(stage)
        named = ", ".join(f"{what} {doctor.in_units(size)}" for what, size in sizes.items())
        total = doctor.in_units(sum(sizes.values()))
        text = f"about {total} without activations ({named})" if sizes else "not known before the model is here"
        stages_of.setdefault(f"memory  {text}", []).append(stage.name)
        if adapters := adapter_parameters(stage):
            share = f"{adapters:,} parameters of adapters beside {parameters(stage.model):,} frozen ones"
            stages_of.setdefault(f"trains  {share}", []).append(stage.name)
    return [
        line if len(names) == len(recipe.stages) else f"{line} (stage {', '.join(names)})"
        for line, names in stages_of.items()
    ]


def _parts(stage: "Stage") -> str:
    """What a stage starts, as a sum of cores."""
    rollout, learner = stage.rollout, stage.learner
    workers = f" × {rollout.tensor_parallel} workers" if rollout.tensor_parallel > 1 else ""
    return f"{rollout.replicas} engine{workers} × {rollout.cpus:g} + {learner.ranks} rank × {learner.cpus:g}"


# --- eval


@app.command("eval")
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A Hugging Face folder or hub id, or the folder of a run.")
    ],
    overrides: EvalOverrides = None,
    recipe: Annotated[
        str, typer.Option(metavar="RECIPE", help="Take evaluation sets, template and rubrics from it.")
    ] = "",
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=PATH",
            help="Evaluate on this file instead; may be repeated. gsm8k, aime24, amc23 and humaneval are known by name.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the first N problems of every set.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=0, metavar="K", help="Samples a problem, for pass@1 and cons@K.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(metavar="T", help="Of the samples. [default: 0.6]")] = None,
    top_p: Annotated[float | None, typer.Option(metavar="P", help="Of the samples. [default: 0.95]")] = None,
    greedy: Annotated[bool | None, typer.Option("--greedy/--no-greedy", help="Also decode greedily.")] = None,
    template: Annotated[
        str, typer.Option(metavar="NAME", help="Prompt template: plain, r1-zero, chat, or a file.")
    ] = "",
    prompt_column: Annotated[
        str, typer.Option(metavar="COLUMN", help="Question column of the other --set files.")
    ] = "",
    answer_column: Annotated[str, typer.Option(metavar="COLUMN", help="Answer column of the other --set files.")] = "",
    answer_pattern: Annotated[
        str, typer.Option(metavar="REGEX", help="Its first group is the answer: '#### (.+)'.")
    ] = "",
    out: Annotated[str, typer.Option(metavar="FILE", help="Results as JSON. [default: eval.json, in the run]")] = "",
) -> None:
    """Measure a model: pass@1, cons@k (majority vote), greedy, and every reward function of the rubric.

    Of a run, the newest finished stage is measured, by the run's own recipe. For another model name its evaluation
    sets with --set or --recipe; without --recipe the model's chat template is used if it has one, else r1-zero.
    """
    from orchestrator.eval_recipe import evaluation_recipe, find_run, latest_export
    from orchestrator.preflight import preflight
    from orchestrator.run_dir import check_writable

    run = find_run(Path(model))
    path = latest_export(run, Path(model)) if run else model
    columns = {"prompt_column": prompt_column, "answer_column": answer_column, "answer_pattern": answer_pattern}
    chosen = {"samples": samples, "temperature": temperature, "top_p": top_p, "greedy": greedy}
    resolved = evaluation_recipe(
        path,
        recipe=_recipe_name(recipe) if recipe else str(run / "recipe.toml") if run else "",
        overrides=overrides or (),
        sets=sets or (),
        columns={key: value for key, value in columns.items() if value},
        limit=limit,
        settings={key: value for key, value in chosen.items() if value is not None},
        template=template,
    )
    target = Path(out) if out else (run or Path()) / "eval.json"
    check_writable("--out", target)
    for note in preflight(resolved, training=False):
        typer.echo(f"note: {note}")
    typer.echo(f"evaluating {path}")
    from orchestrator.evaluate import evaluate_model

    results = evaluate_model(resolved, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"model": path, "results": results}, indent=2) + "\n", encoding="utf-8")
    _print_results(results)
    typer.echo(f"results  {target}")


def _print_results(results: Sequence[dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from orchestrator.eval_figures import columns

    figures = columns(results)
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("set")
    for title in ("problems", *(figure.head for figure in figures)):
        table.add_column(title, justify="right")
    for result in results:
        table.add_row(result["set"], f"{result['problems']:,}", *(figure.cell(result) for figure in figures))
    # A file has room for every figure.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


# --- score


@app.command()
def score(
    rubric: Annotated[
        str,
        typer.Argument(metavar="RUBRIC", help="math, code, format, another reward function, or RECIPE[:RUBRIC]."),
    ],
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSONL file of responses; - for standard input.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Arguments of the reward function, or settings over the recipe's."),
    ] = None,
    out: Annotated[str, typer.Option(metavar="FILE", help="Where the scores go. [default: standard output]")] = "",
    processes: Annotated[int, typer.Option(min=0, metavar="N", help="Scoring processes; 0: one a core.")] = 0,
) -> None:
    """Score a JSONL file of completions by a rubric, offline, in order.

    Every line is an object with `response` and what the rubric needs: `answer` for math; `tests`, or `prompt`,
    `entry_point` and `test`, for code. Every line gives one line: `id` (where there is one), `reward`, `status` (ok,
    timeout, error), `breakdown`, `extracted`. A line that cannot be read has status error, and the others are scored.
    """
    from orchestrator.run_dir import check_writable
    from orchestrator.score import Tally, find_rubric, score_lines, summary

    functions, settings = find_rubric(rubric, overrides or ())
    if out:
        check_writable("--out", Path(out))
    tally = Tally()
    with ExitStack() as stack:
        try:
            source = sys.stdin.buffer if file == "-" else stack.enter_context(open(file, "rb"))
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error.strerror}") from None
        target = stack.enter_context(open(out, "w", encoding="utf-8")) if out else sys.stdout
        for line in score_lines(_up_to_the_last(_watched(source, stack)), functions, settings, processes):
            tally.add(line)
            print(line, file=target, flush=not out)
    typer.echo(summary(tally.statuses, tally.mean), err=True)


def _up_to_the_last(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Without the blank lines at the end. One between others is malformed like any that holds no object."""
    num_blank = 0
    for line in lines:
        if not line.strip():
            num_blank += 1
            continue
        yield from [b""] * num_blank
        num_blank = 0
        yield line


def _watched(source: BinaryIO, stack: ExitStack) -> Iterator[bytes]:
    """The lines of a file, with a progress bar on a terminal."""
    if not sys.stderr.isatty() or source is sys.stdin.buffer:
        return iter(source)
    from rich.console import Console
    from rich.progress import Progress

    bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
    return iter(bar.wrap_file(source, total=Path(source.name).stat().st_size, description="scoring"))


# --- status, scale, stop

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run.")]


@app.command()
def status(run_dir: RunArgument) -> None:
    """Show where a run stands: its stages, its last step, and whether it is going on."""
    from orchestrator.status import describe

    for line in describe(Path(run_dir)):
        typer.echo(line)


@app.command()
def scale(
    run_dir: RunArgument,
    sizes: Annotated[list[str], typer.Argument(metavar="SERVICE=N", help="Number of workers, such as rewards=4.")],
) -> None:
    """Change the number of workers of a run while it goes on."""
    from orchestrator.control import ask_for

    wanted = {}
    for size in sizes:
        service, _, count = size.partition("=")
        if service not in ("rewards", "rollout", "learner") or not count.isdecimal() or int(count) < 1:
            raise InputError(f"{size!r}: give SERVICE=N with N ≥ 1, such as rewards=4")
        wanted[service] = int(count)
    for service, (before, after) in ask_for(Path(run_dir), wanted).items():
        typer.echo(f"{service}: {before} → {after} workers")


@app.command()
def stop(run_dir: RunArgument) -> None:
    """End a run on this machine as Ctrl-C does; it can be continued."""
    from orchestrator.control import stop_run

    typer.echo(f"asked {stop_run(Path(run_dir))} to stop; continue with: rayzero train {run_dir}")


# --- report, recipes, doctor


@app.command()
def report(run_dir: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.")]) -> None:
    """Write the HTML report of a run: evaluations, curves, samples."""
    from orchestrator.report import write_report

    typer.echo(str(write_report(Path(run_dir))))


@app.command()
def recipes(
    keys: Annotated[
        bool, typer.Option("--keys", help="Print every key that a recipe may hold, as a Markdown table.")
    ] = False,
    rewards: Annotated[bool, typer.Option("--rewards", help="Print the reward functions and their arguments.")] = False,
) -> None:
    """List the shipped recipes, every key of a recipe, or the reward functions that a rubric may name."""
    from orchestrator.config import recipe_keys, shipped_recipes

    if rewards:
        from rewards.builtin import describe

        for name, arguments, summary in describe():
            typer.echo(f"{name}: {summary}.\n    {arguments}")
        return
    if keys:
        typer.echo("| Key | Type | Default | Meaning |\n|---|---|---|---|")
        for key, kind, default, meaning in recipe_keys():
            cells = (f"`{key}`", _kind(kind), default if default == "required" else f"`{default}`", meaning)
            typer.echo("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return
    shipped = shipped_recipes()
    width = max(map(len, shipped))
    for name, description in shipped.items():
        typer.echo(f"{name:<{width}}  {description}")


def _kind(text: str) -> str:
    """A type in the table of keys; the values of a choice are written out."""
    if text.startswith("["):
        return " or ".join(f"`{choice.strip()}`" for choice in text.strip("[]").replace("'", '"').split(","))
    return f"`{text}`"


@app.command()
def doctor() -> None:
    """Show what this machine can do, and what is missing (exit code 1)."""
    from orchestrator.doctor import examine

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
