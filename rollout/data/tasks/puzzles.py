"""Three kinds of small problems that take several steps, asked and worked in English or in Chinese.

    sums   What is the sum of 27 and 48?          7 plus 8 is 15. 2 plus 4 plus 1 is 7.
    dial   The dial is at 3. On 4, back 5. …      3 on 4 is 7. 7 back 5 is 2.
    most   What is the most of 3 and 4, 5 and 1?  3 plus 4 is 7. 5 plus 1 is 6. The most is 7.

Each step is easy and the answer at once is hard, so working it out pays. The two languages share digits and nothing
else; which one a step is written in is a choice of its own, so text may mix them, as that of a base model does.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal, cast

import numpy as np

from rollout.data.tasks.rows import Options, TaskOptions, TaskRow, is_held_out

Language = Literal["en", "zh"]
Text = Mapping[Language, str]
"""One text in each language."""

LANGUAGES: tuple[Language, ...] = ("en", "zh")
MARKS = 10
"""Positions of the dial."""
FURTHEST = 4
"""Most marks that the dial is turned by at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Puzzle:
    key: str
    """The problem without its wording: what the split goes by."""
    question: Text
    steps: tuple[Text, ...]
    answer: str


def puzzle_rows(split: str, seed: int, limit: int, options: TaskOptions) -> Iterator[TaskRow]:
    """Distinct puzzles in random order; half of them in each language, or all in one.

    Options:
        family: `sums`, `dial`, `most` or `all` (default), in turn.
        steps: most steps of a puzzle: digits of a summand, turns, sums to compare (default 3); the least is 2.
        language: of the questions: `en`, `zh` or `both` (default).
        style: `worked` (the R1 form, default) or `mixed` (half of the rows answer at once, others have bare steps or half
            of the tags, and one in eight the full form: text such as a base model has read, for R1-Zero).
        mixing: share of steps in the other language than the question's (default 0).
        count: number of puzzles when `limit` is 0 (default 20,000).

    The held-out puzzles are the same for every seed, so that runs can be compared.
    """
    read = Options("puzzles", options)
    read.check_names("count", "family", "language", "mixing", "steps", "style")
    family = read.one_of("family", "all", (*FAMILIES, "all"))
    makers = list(FAMILIES.values()) if family == "all" else [FAMILIES[family]]
    asked = read.one_of("language", "both", (*LANGUAGES, "both"))
    languages = LANGUAGES if asked == "both" else (cast(Language, asked),)
    writer = _Writer(
        style=cast(Literal["worked", "mixed"], read.one_of("style", "worked", ("worked", "mixed"))),
        mixing=read.share("mixing", 0.0),
    )
    steps, count = read.whole("steps", 3, 2, 6), read.whole("count", 20_000, 1)
    rng = np.random.default_rng([seed if split == "train" else 0, steps])
    for puzzle in islice(_puzzles(makers, steps, split == "held-out", rng), limit or count):
        language = languages[int(rng.integers(len(languages)))]
        completion = writer.completion(puzzle, language, rng)
        yield TaskRow(f"{puzzle.key}/{language}", puzzle.question[language], puzzle.answer, completion)


def _puzzles(
    makers: list[Callable[[int, np.random.Generator], Puzzle]], steps: int, held_out: bool, rng: np.random.Generator
) -> Iterator[Puzzle]:
    """Distinct puzzles of one split, the families in turn; ends when a family has (nearly) no new one left."""
    seen: set[str] = set()
    while True:
        for make in makers:
            for _ in range(10_000):
                puzzle = make(int(rng.integers(2, steps + 1)), rng)
                if puzzle.key not in seen and is_held_out(puzzle.key) == held_out:
                    break
            else:
                return
            seen.add(puzzle.key)
            yield puzzle


# --- Families


def sums(steps: int, rng: np.random.Generator) -> Puzzle:
    """Two numbers of `steps` digits, added column by column from the units."""
    low = 10 ** (steps - 1)
    a, b = (int(number) for number in rng.integers(low, 10 * low, size=2))
    lines: list[Text] = []
    carry = 0
    for place in range(steps):
        x, y = (number // 10**place % 10 for number in (a, b))
        total = x + y + carry
        lines.append(
            {"en": f"{x} plus {y}{' plus 1' * carry} is {total}.", "zh": f"{x}加{y}{'加1' * carry}得{total}。"}
        )
        carry = total // 10
    return Puzzle(
        key=f"sums {min(a, b)} {max(a, b)}",
        question={"en": f"What is the sum of {a} and {b}?", "zh": f"{a}与{b}的和是多少？"},
        steps=tuple(lines),
        answer=str(a + b),
    )


def dial(steps: int, rng: np.random.Generator) -> Puzzle:
    """A dial with ten marks, turned on and back."""
    start = at = int(rng.integers(MARKS))
    turns = [
        (bool(back), int(by))
        for back, by in zip(rng.integers(2, size=steps), rng.integers(1, FURTHEST + 1, size=steps), strict=True)
    ]
    lines: list[Text] = []
    for back, by in turns:
        after = (at - by if back else at + by) % MARKS
        lines.append(
            {
                "en": f"{at} {'back' if back else 'on'} {by} is {after}.",
                "zh": f"{at}{'退' if back else '进'}{by}到{after}。",
            }
        )
        at = after
    en = ", ".join(f"{'back' if back else 'on'} {by}" for back, by in turns)
    zh = "，".join(f"{'退' if back else '进'}{by}" for back, by in turns)
    return Puzzle(
        key=f"dial {start} " + " ".join(f"{'-' if back else '+'}{by}" for back, by in turns),
        question={
            "en": f"The dial is at {start}. Turn it {en}. Where is it?",
            "zh": f"表盘指着{start}，{zh}，现在指着几？",
        },
        steps=tuple(lines),
        answer=str(at),
    )


def most(steps: int, rng: np.random.Generator) -> Puzzle:
    """The largest of `steps` sums of two digits."""
    pairs = [(int(x), int(y)) for x, y in rng.integers(10, size=(steps, 2))]
    largest = max(x + y for x, y in pairs)
    lines: list[Text] = [{"en": f"{x} plus {y} is {x + y}.", "zh": f"{x}加{y}得{x + y}。"} for x, y in pairs]
    lines.append({"en": f"The most is {largest}.", "zh": f"最大是{largest}。"})
    return Puzzle(
        key="most " + " ".join(f"{x}{y}" for x, y in pairs),
        question={
            "en": f"What is the most of {', '.join(f'{x} and {y}' for x, y in pairs)}?",
            "zh": f"{'，'.join(f'{x}与{y}' for x, y in pairs)}，哪个和最大？",
        },
        steps=tuple(lines),
        answer=str(largest),
    )


FAMILIES: Mapping[str, Callable[[int, np.random.Generator], Puzzle]] = {"sums": sums, "dial": dial, "most": most}


# --- Completions


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    style: Literal["worked", "mixed"]
    mixing: float

    def completion(self, puzzle: Puzzle, language: Language, rng: np.random.Generator) -> str:
        thought = " ".join(line[self._language(language, rng)] for line in puzzle.steps)
        if self.style == "worked":
            return f"<think>{thought}</think><answer>{puzzle.answer}</answer>"
        forms = (
            f"<think>{thought}</think><answer>{puzzle.answer}</answer>",
            f"<answer>{puzzle.answer}</answer>",
            f"<answer>{puzzle.answer}</answer>",
            f"<answer>{puzzle.answer}</answer>",
            puzzle.answer,
            f"{thought} {puzzle.answer}",
            f"<think>{thought}</think>{puzzle.answer}",
            f"{thought}<answer>{puzzle.answer}</answer>",
        )
        return forms[int(rng.integers(len(forms)))]

    def _language(self, asked: Language, rng: np.random.Generator) -> Language:
        if rng.random() >= self.mixing:
            return asked
        return "zh" if asked == "en" else "en"
