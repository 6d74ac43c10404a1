"""The settings of a recipe must not contradict each other. Types and bounds of single values are checked by pydantic.

Every function raises InputError with the first contradiction that it finds.
"""

from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.schedule import Schedule, check_schedule
from orchestrator.config.sharing import sharing_fault
from orchestrator.config.stage_kinds import kind_of
from orchestrator.config.wiring import check_wiring
from rollout.data.template_settings import is_chat
from rollout.errors import InputError, did_you_mean


def check_consistency(recipe: Recipe) -> None:
    """Every stage by itself, then what the stages take from each other."""
    for stage in recipe.stages:
        _check_length(stage)
        _check_data(stage)
        _check_template(stage)
        _check_labels(stage)
        _check_batches(stage)
        check_schedule(stage)
        _check_tokens(stage)
        _check_sharing(stage)
        _check_parts_of_gpus(stage)
    check_wiring(recipe.stages)


def _check_length(stage: Stage) -> None:
    """The stage has a length, and only one."""
    if kind_of(stage).counts_epochs and stage.sft.epochs:
        if stage.loop.steps:
            raise InputError(
                f"stage {stage.name!r}: sft.epochs = {stage.sft.epochs:g} and loop.steps = {stage.loop.steps} both say "
                "how long it is; set one of them to 0"
            )
    elif not stage.loop.steps:
        raise InputError(
            f"stage {stage.name!r}: loop.steps = 0: give at least 1" + " or sft.epochs" * kind_of(stage).counts_epochs
        )


def _check_data(stage: Stage) -> None:
    """There is something to work on, and every rubric that it asks for is one of the recipe's."""
    if kind_of(stage).only_evaluates and not stage.eval.sets:
        raise InputError(f"stage {stage.name!r} evaluates nothing: add [eval.sets.NAME] with `path` or `task`")
    if not kind_of(stage).only_evaluates and not stage.data.sources:
        raise InputError(f"stage {stage.name!r} has no prompts: add [data.sources.NAME] with `path` or `task`")
    # Worked examples and pairs are not scored.
    scored = stage.data.sources if kind_of(stage).samples else {}
    for name, source in (*scored.items(), *stage.eval.prompt_sets.items()):
        if source.rubric not in stage.rewards.rubrics:
            known = ", ".join(sorted(stage.rewards.rubrics))
            raise InputError(
                f"stage {stage.name}: source {name!r} asks for rubric {source.rubric!r}; rewards.rubrics has: {known}"
            )


def _check_template(stage: Stage) -> None:
    """What is said of a chat template has one, and turns that stand before a question have a question."""
    for key in ("system", "template_args"):
        if getattr(stage.data, key) and not is_chat(stage.data.template):
            raise InputError(
                f"stage {stage.name}: data.{key} is for chat templates, but data.template = {stage.data.template!r}; "
                'set it to "chat", or to a Jinja file'
            )
    conversations = next((name for name, source in stage.data.sources.items() if source.messages_column), "")
    if stage.data.few_shot.path and conversations and kind_of(stage).learns_from == "examples":
        raise InputError(
            f"stage {stage.name}: data.few_shot stands before questions, but source {conversations!r} holds whole "
            "conversations (messages_column); remove one of them"
        )


def _check_labels(stage: Stage) -> None:
    """The reward functions that evaluation sets name are those of their rubric."""
    for name, section in stage.eval.prompt_sets.items():
        labels = stage.rewards.rubrics[section.rubric]
        for key, label in (("correct", section.correct), ("judged_by", section.judged_by)):
            if label and label not in labels:
                raise InputError(
                    f"stage {stage.name}: eval.sets.{name}.{key} = {label!r}{did_you_mean(label, labels)}; "
                    f"rubric {section.rubric!r} has: {', '.join(labels)}"
                )


def _check_batches(stage: Stage) -> None:
    """Groups, mini-batches and publishes of reinforcement learning."""
    if not kind_of(stage).is_rl:
        return
    if stage.rollout.group_size == 1:
        raise InputError(
            f"stage {stage.name}: rollout.group_size = 1: advantages are relative to the group, which needs at least 2 "
            "completions"
        )
    if stage.loop.publish_every > stage.loop.max_staleness + 1:
        raise InputError(
            f"stage {stage.name}: loop.publish_every = {stage.loop.publish_every} lets tokens be "
            f"{stage.loop.publish_every - 1} versions old; raise loop.max_staleness (now {stage.loop.max_staleness}) to at "
            "least that"
        )
    if stage.learner.mini_batches > stage.loop.groups_per_step:
        raise InputError(
            f"stage {stage.name}: learner.mini_batches = {stage.learner.mini_batches} is more than the "
            f"{stage.loop.groups_per_step} groups of a batch (loop.groups_per_step)"
        )


def _check_tokens(stage: Stage) -> None:
    """Prompt and completion fit the engine. A reward model reads and generates nothing."""
    longest = Schedule(stage).max_tokens
    if kind_of(stage).generates and longest + stage.data.max_prompt_tokens > stage.model.max_tokens:
        raise InputError(
            f"stage {stage.name}: rollout.max_tokens ({longest}) + data.max_prompt_tokens "
            f"({stage.data.max_prompt_tokens}) exceed model.max_tokens ({stage.model.max_tokens})"
        )


def _check_sharing(stage: Stage) -> None:
    """Engines and ranks that are to take turns on GPUs can."""
    fault = sharing_fault(stage)
    if stage.rollout.share_gpus is True and fault:
        raise InputError(f"stage {stage.name!r}: rollout.share_gpus = true: {fault}")


def _check_parts_of_gpus(stage: Stage) -> None:
    """Several GPUs for one engine are whole ones: Ray gives no actor parts of two."""
    rollout = stage.rollout
    if rollout.tensor_parallel > 1 and rollout.gpus < 1:
        raise InputError(
            f"stage {stage.name!r}: rollout.gpus = {rollout.gpus:g}: the {rollout.tensor_parallel} workers of an engine "
            "(rollout.tensor_parallel) have whole GPUs; set it to 1 (reward models find their part by learner.gpus=0.8)"
        )
