"""Data sets that everybody evaluates on, in the form of the files in which they are published: a user names set and file.

Imports nothing heavy, so that a recipe is read without pyarrow.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rollout.data.template_settings import CHAT, is_chat

PLACEHOLDER = "{prompt}"
"""Mark of the place of the question in a template and in a form."""

BOXED = PLACEHOLDER + "\n\nPlease reason step by step, and put your final answer within \\boxed{}."

COMPLETE = (
    "Complete the following Python function. Answer with one Python code block that holds the whole function, with "
    "its imports.\n\n```python\n" + PLACEHOLDER + "```"
)


PROGRAM = (
    "Solve the following problem with a Python program. Answer with one Python code block that holds the whole program, "
    "with its imports.\n\n" + PLACEHOLDER
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSet:
    """How a data set is read, asked and scored. What a source says itself comes first."""

    columns: Mapping[str, str]
    """Key of a source → the column that it names in this set."""
    needs: tuple[str, ...] = ()
    """Further columns that the rubric of the set reads; they may be empty in some rows."""
    rubric: str = "math"
    """Name of the rubric, `math`, `answer-line` or `code`, which a recipe has without saying so."""
    form: str = PLACEHOLDER
    """Text that is asked, with the question in it."""
    templates: tuple[str, ...] = field(default=())
    """Templates under which `form` is used; under others the question stands alone. Empty: all."""


def _mathematics(**columns: str) -> KnownSet:
    # `r1-zero` says by itself where the answer goes, and a file of the user's is the user's affair.
    return KnownSet(columns=columns, form=BOXED, templates=(CHAT,))


def _programs(*needs: str, **columns: str) -> KnownSet:
    columns = {"answer_column": "", "starter_column": "starter_code", **columns}
    return KnownSet(columns=columns, needs=needs, rubric="code", form=PROGRAM)


KNOWN_SETS: Mapping[str, KnownSet] = {
    "gsm8k": _mathematics(prompt_column="question", answer_column="answer", answer_pattern="#### (.+)"),
    "aime24": _mathematics(prompt_column="problem", answer_column="answer"),
    "amc23": _mathematics(prompt_column="problem", answer_column="answer"),
    "math": _mathematics(prompt_column="problem", answer_column="solution"),
    "math500": _mathematics(prompt_column="problem", answer_column="answer"),
    "numinamath": _mathematics(prompt_column="problem", answer_column="answer"),
    "numinamath-cot": _mathematics(prompt_column="problem", answer_column="solution"),
    "deepscaler": _mathematics(prompt_column="problem", answer_column="answer"),
    # Its questions say themselves where the answer goes.
    "dapo-math": KnownSet(
        columns={"prompt_column": "prompt", "answer_column": "reward_model.ground_truth"}, rubric="answer-line"
    ),
    "apps": _programs("input_output", prompt_column="question"),
    "taco": _programs("input_output", prompt_column="question"),
    "livecodebench": _programs("public_test_cases", "private_test_cases", prompt_column="question_content"),
    "humaneval": KnownSet(
        columns={"prompt_column": "prompt", "answer_column": ""},
        needs=("entry_point", "test"),
        rubric="code",
        form=COMPLETE,
    ),
}
"""Name → set: GSM8K (arXiv:2110.14168), AIME 2024, AMC 2023, MATH (arXiv:2103.03874) with the answer in the box of its
solution and MATH-500 with a column of it, NuminaMath 1.5 with a column and NuminaMath-CoT with a box, DeepScaleR-Preview,
DAPO-Math-17k (arXiv:2503.14476), APPS (arXiv:2105.09938), TACO (arXiv:2312.14852), LiveCodeBench's code generation
(arXiv:2403.07974), HumanEval (arXiv:2107.03374)."""


def form_of(name: str, template: str) -> str:
    """How the questions of a known set are asked under a template (`data.template`)."""
    known = KNOWN_SETS[name]
    # A chat template in a file stands for the model's own.
    named = CHAT if is_chat(template) else template
    return known.form if not known.templates or named in known.templates else PLACEHOLDER
