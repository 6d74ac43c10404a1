"""References that are no answers: what data sets write where a problem has none, or where the answer was not found."""

import re

from rewards.math.spelling import normal, words
from rewards.math.verdict import gold_answer

LONGEST_ANSWER = 400
"""Characters; a longer reference is a text, which nobody repeats to the letter."""

_PLACEHOLDERS = frozenset(
    str.split(
        "proof proofs proven proved seeproof proofproblem proofquestion proofrequired proofomitted seesolution seebelow seeabove "
        "seeexplanation notfound answernotfound noanswer noanswerfound noanswerprovided notavailable notprovided notgiven "
        "unavailable unknown missing na n/a nan null nil none todo tbd omitted error failed qed see证明 证明 證明 证明题 证明略 略 答案略 见解析 "
        "見解析 见证明 无答案 无 доказательство доказано нетответа"
    )
)
"""Compared without case, white space and the signs between words."""
_BETWEEN = re.compile(r"[\s_.\-*()\[\]<>'\"$:!]+")
_NOTHING = re.compile(r"[\s.?!_\-–—*$…]*|\\(?:square|blacksquare|Box|qed|ldots|dots)")


def no_answer(reference: str) -> str:
    """What stands in place of an answer, for messages; empty where a reference is one, as far as its look tells."""
    answer = gold_answer(reference).strip()
    if len(answer) > LONGEST_ANSWER:
        return f"a text of more than {LONGEST_ANSWER} characters"
    folded = _BETWEEN.sub("", words(normal(answer)))
    if folded in _PLACEHOLDERS or _NOTHING.fullmatch(answer):
        return repr(answer)
    return ""
