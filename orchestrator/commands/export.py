"""`rayzero export`: a model of a run as a Hugging Face folder."""

from pathlib import Path
from typing import Annotated

import typer

from rollout.errors import InputError, ServiceError, visible

Model = Annotated[
    str,
    typer.Argument(
        metavar="RUN/STAGE[@STEP|@best]",
        help="A stage of a run, or its URI in a storage; @STEP: its checkpoint of that step; @best: the one with the best "
        "evaluation.",
    ),
]
Folder = Annotated[str, typer.Argument(metavar="DIR", help="New folder, or an empty one.")]
By = Annotated[
    str,
    typer.Option(
        metavar="SET[:FIGURE]",
        help="What is best, such as test:pass@1. [default: the figure that was read at most steps]",
    ),
]
Adapter = Annotated[
    bool, typer.Option("--adapter", help="The LoRA adapter alone, in peft's form, in place of the merged model.")
]
BaseModel = Annotated[
    str, typer.Option(metavar="OWNER/NAME", help="Name of the base on the hub, where the run knows only its folder.")
]
Push = Annotated[str, typer.Option(metavar="OWNER/NAME", help="Upload the folder to this repository of the hub, too.")]
Private = Annotated[bool, typer.Option("--private", help="Make that repository a private one, if it is new.")]


def export(
    model: Model,
    folder: Folder,
    by: By = "",
    adapter: Adapter = False,
    base_model: BaseModel = "",
    push: Push = "",
    private: Private = False,
) -> None:
    """Write a model of a run as a Hugging Face folder with a model card.

    Without @ the model that the stage ended with, or its newest checkpoint; of a RUN alone the newest stage. A checkpoint
    is put together in this process, without a cluster or a GPU, whatever it was trained on; LoRA adapters are merged. Of
    equally good steps @best is the earliest that was kept.
    """
    from orchestrator.export.base import base_of
    from orchestrator.export.chosen import choose
    from orchestrator.export.folder import adapter_base, check_adapter, check_target, write_model
    from orchestrator.export.hub import check_hub, check_name
    from orchestrator.export.hub import push as push_folder
    from orchestrator.run.reading import reading

    if private and not push:
        raise InputError("--private is of the repository of --push; name one")
    for option, name in (("--push", push), ("--base-model", base_model)):
        if name:
            check_name(option, name)
    target = Path(folder)
    with reading(model, models=True) as (path, copy):
        chosen = choose(str(path), by)
    base = base_of(chosen.recipe, chosen.stage, base_model)
    if adapter:
        base = adapter_base(chosen, base, base_model)
        check_adapter(chosen, base, published=bool(push))
    check_target(target)
    if push:
        check_hub(push)
    run = copy.uri if copy else chosen.run.directory
    typer.echo(visible(f"model   {run}/{chosen.stage.name}: {chosen.why}"))
    write_model(chosen, base, target, name=push or target.resolve().name, adapter=adapter)
    typer.echo(f"folder  {target}")
    if push:
        message = f"{chosen.stage.name} of {chosen.recipe.name}, step {chosen.step:,}"
        try:
            address = push_folder(target, push, private=private, message=message)
        except (InputError, ServiceError) as problem:
            raise type(problem)(
                f"{problem}\n{target} is whole: `hf upload {push} {target}` sends it later"
            ) from problem
        typer.echo(f"hub     {address}")
