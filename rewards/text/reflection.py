"""How often a thought says that it checks itself: "wait, let me check that again".

DeepSeek-R1-Zero began to do this by itself (arXiv:2501.12948, section 2.2.4), and its growth is a sign of reasoning beside
accuracy and length. It is counted by phrases, for each language its own; a thought may mix languages, so those of all are looked
for. A list cannot tell whether the check was one: the figure is of words, and of no others than these.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from rewards.text.response import read_response

PHRASES: Mapping[str, tuple[str, ...]] = {
    "en": (
        "wait,", "wait.", "wait!", "wait…", "but wait", "hold on", "hmm", "let me check", "let's check", "let me verify",
        "let's verify", "let me review", "double-check*", "double check*", "recheck*", "re-check*", "re-examin*", "reexamin*",
        "reconsider*", "recalculat*", "recompute*", "recount*", "rethink*", "check again", "check this again", "check that again",
        "try again", "start over", "i made a mistake", "i made an error", "on second thought", "that's not right",
        "that is not right", "that's wrong", "that is wrong", "is that right", "is this right", "to verify", "to double-check",
    ),
    "zh": (
        "等等，", "等一下", "等一等", "让我检查", "检查一下", "再检查", "重新检查", "验证一下", "验算", "重新计算", "重新考虑",
        "再想想", "不对，", "我错了", "算错了",
    ),
    "de": (
        "moment,", "warte,", "überprüf*", "prüfe ich", "prüfen wir", "prüfe noch", "nachrechn*", "rechne nach", "rechnen wir nach",
        "zur probe", "zur kontrolle", "das stimmt nicht", "stimmt das", "ich habe mich verrechnet", "ich habe einen fehler",
    ),
    "fr": (
        "attends,", "attendez,", "vérifi*", "revérifi*", "revoyons", "recalculons", "je me suis trompé*",
        "ce n'est pas correct", "à la réflexion",
    ),
    "es": (
        "espera,", "verifiquemos", "verifico", "voy a verificar", "vamos a verificar", "comprobemos", "compruebo", "voy a comprobar",
        "vamos a comprobar", "revisemos", "reviso", "me equivoqué", "me he equivocado", "eso no es correcto", "pensándolo bien",
    ),
    "pt": (
        "espere,", "vamos verificar", "vou verificar", "verifiquemos", "vamos conferir", "vou conferir", "vamos revisar",
        "vou revisar", "me enganei", "isso não está certo", "pensando bem",
    ),
    "it": (
        "aspetta,", "verifichiamo", "verifico", "controlliamo", "ricontroll*", "ricalcoliamo", "ho sbagliato",
        "ho commesso un errore", "non è corretto", "ripensandoci",
    ),
    "ru": ("подожди*", "постой*", "провер*", "перепровер*", "пересчита*", "я ошибся", "я ошиблась", "это неверно"),
    "ja": ("待って", "待てよ", "確認し", "確かめ", "検算", "見直", "再確認", "間違えた", "間違っていた"),
    "ko": ("잠깐", "확인해", "검산", "다시 계산", "다시 확인", "다시 생각", "틀렸"),
}  # fmt: skip
"""ISO 639-1 code → phrases by which a thought says that it checks itself. `*` at the end: the word may go on."""
_NO_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Scripts whose words stand next to each other, or change at their end."""


def reflections(prompt: str, completion: str, phrases: Iterable[str]) -> int:
    """How often the thought of a completion has one of the phrases, or its reply where there is no thought.

    Upper and lower case are the same, so are kinds of apostrophes and of white space; a phrase stands at word boundaries, and
    where two overlap the one that begins first, or else the longer, counts. Linear in the length of the text.
    """
    response = read_response(prompt, completion)
    text = _plain(response.thought or response.reply)
    found = [place for phrase in _read(tuple(phrases)) for place in phrase.places(text)]
    count, end = 0, 0
    for start, negative_length in sorted(found):
        if start >= end:
            count, end = count + 1, start - negative_length
    return count


@dataclass(frozen=True, slots=True)
class _Phrase:
    """One that is looked for. Searched as text: a pattern of all phrases takes twenty times as long."""

    stem: str
    begins: bool
    """A word begins with it: no letter stands before."""
    ends: bool
    """A word ends with it."""

    def places(self, text: str) -> Iterator[tuple[int, int]]:
        """(start, −length) of each occurrence, so that of two that begin together the longer is less."""
        at, size = text.find(self.stem), len(self.stem)
        while at >= 0:
            inside = self.begins and at and _is_letter(text[at - 1])
            goes_on = self.ends and at + size < len(text) and _is_letter(text[at + size])
            if not inside and not goes_on:
                yield at, -size
            at = text.find(self.stem, at + 1)


@lru_cache(maxsize=32)
def _read(phrases: tuple[str, ...]) -> tuple[_Phrase, ...]:
    found = []
    for plain in dict.fromkeys(map(_plain, phrases)):
        stem = plain.removesuffix("*").rstrip()
        if stem:
            begins, ends = (_is_letter(sign) and not _NO_SPACES.match(sign) for sign in (stem[0], stem[-1]))
            found.append(_Phrase(stem, begins, ends and not plain.endswith("*")))
    return tuple(found)


def _is_letter(sign: str) -> bool:
    return sign.isalnum() or sign == "_"


def _plain(text: str) -> str:
    return " ".join(text.casefold().replace("’", "'").split())
