"""Whether two answers are equal, decided without sympy in most cases: True, False, or None where it is left open.

An answer is read into its structure (`rewards.math.read`: a value with a unit, a tuple or interval, a set, a list, a
union, a matrix, a relation, a word), structures are compared part by part (`rewards.math.compare`), and values by
`rewards.math.algebra`. What that cannot decide is handed to `open_case`, which the symbolic rung supplies; without one it
stays None. So only single expressions ever reach sympy.
"""

import re
from collections.abc import Sequence

from rewards.math.compare import Comparison, Decision, OpenCase
from rewards.math.nodes import Several
from rewards.math.numbers import plain_number
from rewards.math.read import MAX_PARTS, read
from rewards.math.spelling import normal, words

MAX_LENGTH = 2000
"""Characters; longer answers are equal only when they are spelt the same."""

_WORD_IN_TEXT = re.compile(r"\\text\s*\{[^{}\\]*[A-Za-z]{3}[^{}\\]*\}")
_SET_ALGEBRA = re.compile(r"\\(?:setminus|backslash|cap)(?![A-Za-z])")
_CHOICE = re.compile(
    r"(?:\\text\s*\{\s*)?(?:(?:option|choice|answer)\s*:?\s*)?\(?\s*(?:\\text\s*\{\s*)?\(?([A-J])\)?\s*\}?\s*\)?[.:)]?\s*\}?",
    re.I,
)
_CHOICE_WITH = re.compile(r"(?:\(([A-J])\)|\\text\s*\{\s*\(?([A-J])\)?[.:]?\s*\}|([A-J])[.:)])(?P<rest>\s*\S.*)", re.S)
_OTHER_CHOICE = re.compile(
    r"(?<![A-Za-z])(?:or|and|not|maybe|but)(?![A-Za-z]).*(?<![A-Za-z])[B-J](?![A-Za-z])|[,/;&]\s*(?:\\text\s*\{\s*)?\(?[A-J](?![A-Za-z])|\(\s*(?:\\text\s*\{\s*)?[A-J]\s*\}?\s*\)"
)


def compare(found: str, reference: str, open_case: OpenCase | None = None) -> Decision:
    """Whether an answer found in a response equals the reference.

    Symmetric but for the base of a number, where the reference says which notation was asked for, and for what an answer
    says of a number that was asked for: a + b = 5 is an answer to 5, but 5 is none to the line a + b = 5.
    """
    if len(found) > MAX_LENGTH or len(reference) > MAX_LENGTH:
        return found.strip() == reference.strip()
    left, right = normal(found), normal(reference)
    if not left or not right:
        return False
    if left == right:
        return True
    value, expected = plain_number(left), plain_number(right)
    if value is not None and expected is not None:
        return value == expected
    letters = _choices(left, right)
    if letters is not None:
        return letters
    if _is_phrase(left, right):
        return True
    try:
        decision = Comparison(open_case).answers(read(left), read(right))
    except RecursionError:
        return False
    if decision is False and (_SET_ALGEBRA.search(left) or _SET_ALGEBRA.search(right)):
        return open_case(left, right) if open_case else None
    return decision


def compare_all(answers: tuple[str, ...], reference: str, open_case: OpenCase | None = None) -> Decision:
    """As `compare`, for a response that states several answers: they must be one, or together the list asked for."""
    final = answers[-1]
    if len(answers) == 1 or all(compare(answer, final) for answer in answers[:-1]):
        return compare(final, reference, open_case)
    if len(answers) > MAX_PARTS or sum(map(len, answers)) > MAX_LENGTH or len(reference) > MAX_LENGTH:
        return False
    try:
        listed = Several(",", tuple(read(normal(answer)) for answer in answers))
        return Comparison(open_case).same(listed, read(normal(reference)))
    except RecursionError:
        return False


def _is_phrase(left: str, right: str) -> bool:
    """The same words, however they are divided into text and formula: \\text{June } 20."""
    return any(_WORD_IN_TEXT.search(side) for side in (left, right)) and words(left) == words(right)


def groups_of_equals(answers: Sequence[str]) -> list[int]:
    """For each answer the index of the first one that it equals; its own where that is the first.

    Answers are equal where `compare` says so, or where they are the same words; what it leaves open is unequal.
    """
    first: list[int] = []
    by_words: dict[str, int] = {}
    for index, answer in enumerate(answers):
        spelt = words(normal(answer[:MAX_LENGTH]))
        if spelt not in by_words:
            known = dict.fromkeys(first)
            by_words[spelt] = next((each for each in known if compare(answer, answers[each])), index)
        first.append(by_words[spelt])
    return first


def _choices(found: str, reference: str) -> Decision:
    """Whether both choose the same letter, or give the value beside it; None where this is no such question."""
    expected, chosen = _choice(reference), _choice(found)
    if expected is None and chosen is None:
        return None
    if expected is not None and chosen is not None:
        if _CHOICE.fullmatch(reference) or _CHOICE.fullmatch(found):
            return expected == chosen
        return compare(_beside(found), _beside(reference)) if expected == chosen else None
    if expected is not None and plain_number(normal(_beside(reference))) is not None:
        return compare(found, _beside(reference))
    beside, other = (_beside(found), reference) if expected is None else (_beside(reference), found)
    return True if beside and compare(beside, other) else None


def _beside(choice: str) -> str:
    """What stands beside the letter of a choice."""
    match = _CHOICE_WITH.fullmatch(choice)
    return match["rest"].strip() if match else ""


def _choice(text: str) -> str | None:
    """The letter of a multiple choice answer: `B`, `(B)`, `\\text{B}`, `option B`, `B. a reason`; else None."""
    if len(text) > 1 and text[0] not in "(\\AaBbCcDdEeFfGgHhIiJjOo":
        return None
    match = _CHOICE.fullmatch(text)
    if match is None:
        match = _CHOICE_WITH.fullmatch(text)
        if match is None or _CHOICE.fullmatch(match["rest"].strip()) or _OTHER_CHOICE.search(match["rest"]):
            return None
    return next(group for group in match.groups() if group).upper()
