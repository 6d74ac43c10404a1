"""`rayzero eval`: measure a model."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rollout.data.known_sets import KNOWN_SETS
from rollout.errors import visible

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A Hugging Face folder or hub id, or a run: its folder, or its URI.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings, such as rollout.replicas=2 or eval.max_tokens=2048."),
]
RecipeOption = Annotated[
    str, typer.Option(metavar="RECIPE", help="Take evaluation sets, template and rubrics from it.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=PATH",
        help=f"Evaluate on this file instead; may be repeated. Known by name: {', '.join(KNOWN_SETS)}.",
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N problems of every set.")]
Samples = Annotated[int | None, typer.Option(min=0, metavar="K", help="Samples a problem, for pass@1 and cons@K.")]
Temperature = Annotated[float | None, typer.Option(metavar="T", help="Temperature of the samples. [default: 0.6]")]
TopP = Annotated[float | None, typer.Option(metavar="P", help="Top-p of the samples. [default: 0.95]")]
Greedy = Annotated[bool | None, typer.Option("--greedy/--no-greedy", help="Also decode greedily.")]
PromptTemplate = Annotated[
    str,
    typer.Option(metavar="NAME", help="Prompt template: plain, r1-zero, chat, or a file (text, or Jinja: my.jinja)."),
]
PromptColumn = Annotated[str, typer.Option(metavar="COLUMN", help="Question column of the other --set files.")]
AnswerColumn = Annotated[str, typer.Option(metavar="COLUMN", help="Answer column of the other --set files.")]
AnswerPattern = Annotated[
    str, typer.Option(metavar="REGEX", help="Its first group is the answer in that column: '#### (.+)'.")
]
BaselineColumn = Annotated[
    str, typer.Option(metavar="COLUMN", help="Column of responses to win against, in the other --set files.")
]
Out = Annotated[str, typer.Option(metavar="FILE", help="Results as JSON. [default: eval.json, in the run]")]


def evaluate(
    model: Model,
    overrides: Overrides = None,
    recipe: RecipeOption = "",
    sets: Sets = None,
    limit: Limit = None,
    samples: Samples = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    greedy: Greedy = None,
    template: PromptTemplate = "",
    prompt_column: PromptColumn = "",
    answer_column: AnswerColumn = "",
    answer_pattern: AnswerPattern = "",
    baseline_column: BaselineColumn = "",
    out: Out = "",
) -> None:
    """Measure a model: pass@1, cons@k (majority vote), greedy, and every reward function of the rubric.

    Of a run, the newest finished stage is measured, by the run's own recipe. For another model name its evaluation
    sets with --set or --recipe; without --recipe the model's chat template is used if it has one, else r1-zero.
    """
    from orchestrator.checks.preflight import preflight
    from orchestrator.evaluation.recipe import evaluation_recipe
    from orchestrator.run.files import check_writable
    from orchestrator.run.reading import model_here
    from rollout.storage.uri import is_uri

    run, path, stored = model_here(model)
    columns = {
        "prompt_column": prompt_column,
        "answer_column": answer_column,
        "answer_pattern": answer_pattern,
        "baseline_column": baseline_column,
    }
    chosen = {"samples": samples, "temperature": temperature, "top_p": top_p, "greedy": greedy}
    resolved = evaluation_recipe(
        path,
        recipe=recipe or (f"{run}/" if run else ""),
        overrides=overrides or (),
        sets=sets or (),
        columns={key: value for key, value in columns.items() if value},
        limit=limit,
        settings={key: value for key, value in chosen.items() if value is not None},
        template=template,
        run=run,
    )
    target = Path(out) if out else (Path() if run is None or is_uri(model) else run) / "eval.json"
    check_writable("--out", target)
    for note in preflight(resolved, training=False):
        typer.echo(visible(f"note: {note}"))
    typer.echo(f"evaluating {path}")
    from orchestrator.evaluation.standalone import evaluate_model

    results = evaluate_model(resolved, path, stored)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"model": path, "results": results}, indent=2) + "\n", encoding="utf-8")
    _print_results(results)
    typer.echo(f"results  {target}")


def _print_results(results: Sequence[dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from orchestrator.results.columns import columns

    figures = columns(results)
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("set")
    for title in ("problems", *(figure.head for figure in figures)):
        table.add_column(escape(title), justify="right")
    for result in results:
        table.add_row(escape(result["set"]), f"{result['problems']:,}", *(figure.cell(result) for figure in figures))
    # A file has room for every figure.
    Console(width=None if sys.stdout.isatty() else 200).print(table)
