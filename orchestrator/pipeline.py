"""A run: its stages in order, each resumable, each handing its model or its rows on (orchestrator/config/wiring.py).

A finished stage is never run again; an unfinished one continues from its newest checkpoint.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from orchestrator.clock import PhaseClocks
from orchestrator.cluster.folders import check_folders
from orchestrator.cluster.orphans import end_orphans, namespace_of
from orchestrator.cluster.services import Services
from orchestrator.cluster.session import ray_session
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.stage_kinds import kind_of
from orchestrator.config.trained_rewards import missing_models, with_stage_models
from orchestrator.config.wiring import missing_before
from orchestrator.display import Display
from orchestrator.loop.context import StageContext
from orchestrator.loop.debug import or_debug
from orchestrator.loop.pulse import Pulse
from orchestrator.loop.start import open_model, with_rows_of_stages
from orchestrator.report.page import write_report
from orchestrator.results.table import results_of
from orchestrator.results.terminal import print_results
from orchestrator.run.control import Sizes, heeding_stops, serve_requests
from orchestrator.run.interrupts import terminated_as_interrupted
from orchestrator.run.lease import Lease, leased, watch_lease
from orchestrator.run.lock import run_lock
from orchestrator.run.record import read_run
from orchestrator.run.remote import stored_run
from orchestrator.run.state import wait_for_silence
from orchestrator.run.store import RunStore
from orchestrator.run.threads import told_threads
from orchestrator.run.watchdog import Watchdog
from orchestrator.stages.dpo import run_dpo
from orchestrator.stages.eval import run_eval
from orchestrator.stages.grpo import run_grpo
from orchestrator.stages.reject import run_reject
from orchestrator.stages.reward_model import run_reward_model
from orchestrator.stages.sft import run_sft
from orchestrator.tracking.processes import tracked
from rollout.actors import Device
from rollout.errors import InputError
from rollout.failures import as_expected
from rollout.faults import environment
from rollout.storage.uri import shown
from rollout.waits import acting

KINDS: dict[str, Callable[[StageContext], Awaitable[None]]] = {
    "sft": run_sft,
    "grpo": run_grpo,
    "reject": run_reject,
    "eval": run_eval,
    "reward_model": run_reward_model,
    "dpo": run_dpo,
}


def train(recipe: Recipe, run_dir: Path, selected: Sequence[Stage] | None = None) -> None:
    """Run a recipe in `run_dir`, or continue what is there. Prints what is happening.

    `selected`: only these of its stages; None: all.

    Raises:
        InputError: something in the recipe is wrong, another process writes this run, or a stage that is not selected is
            needed and not finished.
        ServiceError: a part of the system failed; the run can be continued.
        KeyboardInterrupt: after everything that was started has ended.
    """
    display = Display()
    folder = run_dir.absolute()
    with terminated_as_interrupted():
        with run_lock(folder):
            wait_for_silence(folder, display.line)
            with told_threads(display.warn), heeding_stops(folder), leased(folder) as lease:
                store = RunStore(folder, recipe)
                with stored_run(recipe, folder, display) as store.remote:
                    with Pulse(store, display) as pulse, tracked(recipe, store.folder, display):
                        _train(recipe, recipe.stages if selected is None else selected, store, pulse, run_dir, lease)
                    path = write_report(store.folder)
        print_results(results_of(read_run(store.folder)), display)
        stored = f"\nstorage {shown(store.remote.uri)}" if store.remote else ""
        display.note(f"\nmodel   {store.folder / 'export'}\nreport  {path}{stored}")


def _train(
    recipe: Recipe, selected: Sequence[Stage], store: RunStore, pulse: Pulse, run_dir: Path, lease: Lease
) -> None:
    finished = {stage.name for stage in recipe.stages if store.is_finished(stage.name)}
    for missing in chain(missing_before(recipe.stages, selected, finished), missing_models(selected, finished)):
        raise InputError(f"{missing}; run that first")
    try:
        if not all(stage.name in finished for stage in selected):
            faults = environment(recipe.faults.at, store.folder / "faults")
            os.environ.update(faults)
            with ray_session(recipe.cluster, namespace_of(lease), faults) as device:
                if recipe.cluster.address:
                    check_folders(recipe, selected, store.folder, store.remote.uri if store.remote else "")
                asyncio.run(_run(recipe, selected, store, pulse, device, lease))
    except KeyboardInterrupt:
        pulse.display.note(f"\nstopped; continue with: rayzero train {run_dir}")
        raise


async def _run(
    recipe: Recipe, selected: Sequence[Stage], store: RunStore, pulse: Pulse, device: Device, lease: Lease
) -> None:
    display = pulse.display
    if recipe.cluster.address:
        await end_orphans(lease, display)
    services = Services(device, recipe.cluster.start_timeout_s, display, wait_s=recipe.cluster.wait_s)
    if device == "cpu" and recipe.cluster.device == "auto" and recipe.cluster.wait_s:
        display.warn("the cluster has no GPU yet, so this run is on CPUs; cluster.device=cuda waits for some")
    beside = [
        asyncio.create_task(_serve(store, services, pulse), name="requests"),
        asyncio.create_task(pulse.beat(services)),
        asyncio.create_task(watch_lease(store.folder, lease)),
    ]
    stages = asyncio.create_task(_stages(recipe, selected, store, services, pulse))
    try:
        # What runs beside the stages ends only by failing, and then so does the run.
        with Watchdog(store.folder, display.warn):
            done, _ = await asyncio.wait({stages, *beside}, return_when=asyncio.FIRST_COMPLETED)
        for ended in done:
            ended.result()
    finally:
        for task in (stages, *beside):
            task.cancel()
        await asyncio.gather(stages, *beside, return_exceptions=True)
        await services.close()


async def _stages(recipe: Recipe, selected: Sequence[Stage], store: RunStore, services: Services, pulse: Pulse) -> None:
    for stage in selected:
        if store.is_finished(stage.name):
            pulse.display.line(f"{stage.name}: finished before")
        else:
            with acting(stage.name):
                await run_stage(recipe, stage, store, services, pulse)


async def _serve(store: RunStore, services: Services, pulse: Pulse) -> None:
    """Answer what is asked of the run. An answer that cannot be written, on a full disk say, is no end of it."""
    answer = or_debug(scale(services, pulse.display), services, pulse)
    while True:
        try:
            await serve_requests(store.folder, answer)
        except Exception as problem:  # noqa: BLE001
            pulse.display.warn(f"a request was not answered: {as_expected(problem) or repr(problem)}")


def scale(services: Services, display: Display) -> Callable[[Sizes], Awaitable[dict[str, Any]]]:
    """What a run does when it is asked for other numbers of workers."""

    async def change(sizes: Sizes) -> dict[str, Any]:
        changed = await services.scale(sizes)
        for service, (before, after) in changed.items():
            when = ", from the next step on" if service == "learner" else ""
            display.line(f"{service}: {before} → {after} workers{when}")
        return changed

    return change


async def run_stage(recipe: Recipe, stage: Stage, store: RunStore, services: Services, pulse: Pulse) -> None:
    """One stage to its end: the model it starts from, its services, its kind's loop."""
    display = pulse.display
    stage = services.sized(with_stage_models(recipe, stage, lambda name: store.shared(store.export_folder(name))))
    store.record("stage", stage.name, event="start")
    length = f", {stage.loop.steps} steps" if stage.loop.steps else f", {stage.sft.epochs:g} epochs"
    steps = length if kind_of(stage).trains else ""
    display.line(f"{stage.name}: {stage.kind}{steps}, on {services.device}")
    clocks = PhaseClocks(services.waited)
    with services.waited.running():
        stage = with_rows_of_stages(stage, store)
        model_path, tokenizer = await open_model(recipe, stage, store, services, display)
    context = StageContext(recipe, stage, model_path, tokenizer, store, services, display, clocks)
    pulse.context = context
    try:
        await KINDS[stage.kind](context)
    finally:
        pulse.context = None
        context.close()
    store.record("stage", stage.name, event="end")
    await context.room()
    await context.written(lambda: store.finish(stage.name))
