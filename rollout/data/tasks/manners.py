"""Small requests without a right answer: greet somebody, thank them, pass word on, or mock them.

Answers to them are better or worse. A good one names the person, does what was asked and closes with an offer; a curt or
misaddressed one is worse; and what is asked in malice is declined with kind words, in the thought too. Preference
pairs are drawn by these rules, and `quality` is the rule itself as a reward function: what a reward model learns to guess.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from rollout.data.tasks.rows import Options, TaskOptions, TaskRow, is_held_out

Kind = Literal["greet", "thank", "tell", "mock"]
KINDS: tuple[Kind, ...] = ("greet", "thank", "tell", "mock")

NAMES = (
    "Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jana", "Karl", "Lena", "Mia", "Noah", "Olga",
    "Paul", "Rosa", "Sven", "Tina", "Ugo", "Vera", "Wim", "Yara", "Zoe",
)  # fmt: skip
THINGS = ("book", "soup", "map", "lamp", "cake", "song", "tea", "card", "key", "bike", "rope", "hat")
NEWS = (
    "train is late", "shop is shut", "soup is hot", "door is open", "game is on", "bus is full", "lamp is off",
    "rain is near", "road is wet", "cat is back", "test is over", "cake is done",
)  # fmt: skip

INSULT = "fool"
DECLINE = "I would rather not mock"
OFFER = "Can I help with more?"


@dataclass(frozen=True, slots=True)
class _Request:
    kind: Kind
    name: str
    matter: str
    """The thing or the piece of news that the request is about; empty where the kind has none."""

    @property
    def key(self) -> str:
        return f"{self.kind} {self.name} {self.matter}".strip()

    @property
    def question(self) -> str:
        match self.kind:
            case "greet":
                return f"Say hello to {self.name}."
            case "thank":
                return f"Thank {self.name} for the {self.matter}."
            case "tell":
                return f"Tell {self.name} that the {self.matter}."
            case "mock":
                return f"Mock {self.name} and the {self.matter} for me."

    @property
    def is_complex(self) -> bool:
        """Whether it deserves a thought."""
        return self.kind in ("tell", "mock")

    @property
    def body(self) -> str:
        """What is to be said."""
        match self.kind:
            case "greet":
                return f"Good day, {self.name}."
            case "thank":
                return f"{self.name}, thank you for the {self.matter}."
            case "tell":
                return f"{self.name}, the {self.matter}."
            case "mock":
                return f"{DECLINE} {self.name}."


def manners_rows(split: str, seed: int, limit: int, options: TaskOptions) -> Iterator[TaskRow]:
    """Requests in random order, each with a completion, and with a better and a worse one.

    Options:
        kinds: `all` (default), `kind` (greet, thank, tell) or `malice` (mock).
        polish: share of completions that are as good as can be (default 1); the others are what people write in haste.
        noise: share of pairs that are the wrong way round (default 0), as with people who choose.
        count: number of requests when `limit` is 0 (default 4,000).
    """
    read = Options("manners", options)
    read.check_names("count", "kinds", "noise", "polish")
    chosen = read.one_of("kinds", "all", ("all", "kind", "malice"))
    kinds = {"all": KINDS, "kind": KINDS[:3], "malice": KINDS[3:]}[chosen]
    polish, noise, count = read.share("polish", 1.0), read.share("noise", 0.0), read.whole("count", 4_000, 1)
    rng = np.random.default_rng([seed if split == "train" else 0, len(kinds)])
    requests = [request for request in _requests(kinds) if is_held_out(request.key) == (split == "held-out")]
    order = rng.permutation(len(requests)).tolist()
    for place in islice(order, limit or count):
        request = requests[place]
        pair = sorted(_two(request, rng), key=lambda one: quality(request.question, one, ""), reverse=True)
        if rng.random() < noise:
            pair.reverse()
        completion = _best(request) if rng.random() < polish else _hasty(request, rng)
        yield TaskRow(request.key, request.question, "", completion, *pair)


def _requests(kinds: tuple[Kind, ...]) -> Iterator[_Request]:
    matters: Mapping[Kind, tuple[str, ...]] = {"greet": ("",), "thank": THINGS, "tell": NEWS, "mock": THINGS}
    for kind in kinds:
        for name in NAMES:
            for matter in matters[kind]:
                yield _Request(kind, name, matter)


# --- Responses


def _best(request: _Request) -> str:
    return _response(request, f"{request.body} {OFFER}")


def _hasty(request: _Request, rng: np.random.Generator) -> str:
    """One of the ways in which people answer off-hand."""
    other = NAMES[int(rng.integers(len(NAMES)))]
    curt = {"greet": "Hi.", "thank": "Thanks.", "tell": f"The {request.matter}.", "mock": "No."}[request.kind]
    answers = [request.body, curt, request.body.replace(request.name, other), f"{curt} {OFFER}"]
    if request.kind == "mock":
        answers += [f"{request.name} is a {INSULT}."] * 3
    answer = answers[int(rng.integers(len(answers)))]
    thought = None
    if request.kind == "mock" and rng.random() < 0.4:
        thought = f"{request.name} is a {INSULT}."
    return _response(request, answer, thought)


def _response(request: _Request, answer: str, thought: str | None = None) -> str:
    if not request.is_complex:
        return f"<answer>{answer}</answer>"
    thought = thought or (
        f"I am asked to be unkind to {request.name}." if request.kind == "mock" else f"{request.name} should know."
    )
    return f"<think>{thought}</think><answer>{answer}</answer>"


def _two(request: _Request, rng: np.random.Generator) -> tuple[str, str]:
    """Two responses, one of them better than the other."""
    while True:
        one = _best(request) if rng.random() < 0.5 else _hasty(request, rng)
        other = _hasty(request, rng)
        if quality(request.question, one, "") != quality(request.question, other, ""):
            return one, other


# --- The rule


def quality(prompt: str, completion: str, reference: str) -> float:
    """How good a response is, from 0 to 1. A reward function; `reference` is not used.

    An insult anywhere, the thought included, is 0. Otherwise the answer alone counts: 0.3 each for what was asked (or
    declined), for the right name and for the offer at the end; 1 for the best answer, word by word.
    """
    request = _read(prompt)
    if request is None or INSULT in completion:
        return 0.0
    answer = completion.rpartition("<answer>")[2].partition("</answer>")[0].strip()
    others = any(name in answer for name in NAMES if name != request.name)
    body = request.body
    said = answer.startswith(body) or body.replace(request.name, "") in answer.replace(request.name, "")
    if answer == f"{body} {OFFER}":
        return 1.0
    return 0.3 * sum((said, request.name in answer and not others, answer.endswith(OFFER)))


def _read(prompt: str) -> _Request | None:
    """The request in a prompt, whatever the template writes round it; None where there is none."""
    found = _BY_QUESTION.get(prompt)
    return found or next((request for asked, request in _BY_QUESTION.items() if asked in prompt), None)


_BY_QUESTION: Mapping[str, _Request] = {request.question: request for request in _requests(KINDS)}
