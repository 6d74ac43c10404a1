"""Language consistency: how much of a thought is written in the language that was asked for.

The formula is that of DeepSeek-R1 (arXiv:2501.12948, section 2.3.2): target-language words over all words of the chain of
thought. `rewards.text.prose` says what a word is. A word is not of the target language when

- its script is not one that the language is written in, or
- the sentences it stands in (8 to 16 words) are in another language of that script: py3langid, a naive Bayes
  classifier that needs no network, finds that language at least 8 times as likely as the target. Of 4,760 such pieces of
  GSM8K answers none is taken for another language (the worst stands at 2.3 times), and of sixteen other languages in
  Latin script at least 97 % of the words are seen not to be English.

Some pairs cannot be told apart by a sentence (Croatian and Serbian, Indonesian and Malay, the Norwegians and Danish)
and pass for one another.
"""

import difflib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from rewards.text.prose import Word, sentences
from rewards.text.response import question, read_response
from rollout.errors import InputError

_SCRIPTS = {
    script: languages.split()
    for script, languages in {
        "latin": "af ca cs da de en es et eu fi fr ga gl hr hu id is it lt lv ms nl no pl pt ro sk sl sq sv sw tl tr vi",
        "greek": "el",
        "cyrillic": "be bg kk mk mn ru sr uk",
        "armenian": "hy",
        "georgian": "ka",
        "hebrew": "he",
        "arabic": "ar fa ur",
        "devanagari": "hi mr ne",
        "bengali": "bn",
        "gurmukhi": "pa",
        "gujarati": "gu",
        "tamil": "ta",
        "telugu": "te",
        "kannada": "kn",
        "malayalam": "ml",
        "sinhala": "si",
        "thai": "th",
        "lao": "lo",
        "khmer": "km",
        "burmese": "my",
        "hangul": "ko",
        "han": "zh ja",
    }.items()
}
_FURTHER = {"ja": {"kana"}, "sr": {"latin"}}
"""Scripts that a language is written in beside the one that it is listed under."""

LANGUAGES: Mapping[str, frozenset[str]] = {
    language: frozenset({script} | _FURTHER.get(language, set()))
    for script, languages in _SCRIPTS.items()
    for language in languages
}
"""ISO 639-1 code → scripts of the language."""

_ALIKE = ({"hr", "sr"}, {"id", "ms"}, {"no", "da"})
_ODDS = 8.0
"""A segment is in another language when that is so many times as likely as the target."""
_SEGMENT_WORDS = 8
_MAX_SEGMENTS = 2_000
"""A longer text is cut into longer segments, so that a classifier call for each stays affordable."""
_TELLING_WORDS = 4
"""Fewer different words say nothing of the language, only of the script: the classifier takes `plus is plus is` for Latin."""


def language_consistency(
    prompt: str, completion: str, reference: str = "", *, target: str = "prompt"
) -> dict[str, float]:
    """Share of the words of the thought that are in the target language, in [0, 1].

    A completion without a thought is scored by its reply. A text without words (bare arithmetic) mixes nothing: 1.0. Linear
    in the length of the text.

    Args:
        prompt: where `target == "prompt"`, its question says the language.
        completion: the text that is scored.
        reference: not used.
        target: an ISO 639-1 code of `LANGUAGES`, or `prompt`: the language of the question, or, where that has too
            few words to tell, the prevailing language of the thought.

    Returns:
        `value`; `words`: how many were counted; `foreign_script` and `foreign_language`: the two shares that are not in
        the target language. The last two and `value` add up to 1.

    Raises:
        InputError: an unknown target.
    """
    if target != "prompt" and target not in LANGUAGES:
        nearest = difflib.get_close_matches(target, LANGUAGES, n=1, cutoff=0.3)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise InputError(
            f"language_consistency: target = {target!r} is not one of prompt, {', '.join(LANGUAGES)}{hint}"
        )
    response = read_response(prompt, completion)
    found = list(sentences(response.thought or response.reply))
    total = sum(word.weight for words in found for word in words)
    language = target
    if target == "prompt":
        language = _prevailing(list(sentences(question(prompt))), sure=True) or _prevailing(found)
    if not total or not language:
        return {"value": 1.0, "words": float(total), "foreign_script": 0.0, "foreign_language": 0.0}
    own_scripts = LANGUAGES[language]
    foreign_script = sum(word.weight for words in found for word in words if word.script not in own_scripts)
    foreign_language = sum(
        sum(word.weight for word in segment if word.script in own_scripts)
        for segment in _segments(found, own_scripts)
        if _in_another_language(segment, language)
    )
    return {
        "value": (total - foreign_script - foreign_language) / total,
        "words": float(total),
        "foreign_script": foreign_script / total,
        "foreign_language": foreign_language / total,
    }


def _prevailing(found: list[list[Word]], *, sure: bool = False) -> str:
    """The language that most of the text is in; empty when it has too few words to tell, or `sure` and in doubt."""
    weights: dict[str, int] = {}
    for words in found:
        for word in words:
            weights[word.script] = weights.get(word.script, 0) + word.weight
    script = max(weights, key=lambda name: weights[name], default="other")
    candidates = [language for language, scripts in LANGUAGES.items() if script in scripts]
    shown = _with_kana(frozenset({script}))
    telling = [word for words in found for word in words if word.script in shown]
    if not candidates or not _tell(telling):
        return ""
    text = _text(telling)
    likelihoods = _likelihoods(text[:20_000])
    best = max(candidates, key=lambda language: likelihoods[language])
    others = [likelihoods[language] for language in candidates if language not in _alike(best)]
    return "" if sure and others and likelihoods[best] < _ODDS * max(others) else best


def _segments(found: list[list[Word]], own_scripts: frozenset[str]) -> Iterator[list[Word]]:
    """Neighbouring sentences with at least 8 words between them, a longer one in pieces of at most 16.

    Only words in scripts of the target, and kana beside Chinese characters. What is left over at the end goes with the
    segment before it.
    """
    shown = _with_kana(own_scripts)
    kept = [[word for word in words if word.script in shown] for words in found]
    least = max(_SEGMENT_WORDS, -(-sum(map(len, kept)) // _MAX_SEGMENTS))
    segment: list[Word] = []
    ready: list[Word] = []
    for words in kept:
        for start in range(0, len(words), least):
            segment = segment + words[start : start + least]
            if len(segment) >= least:
                if ready:
                    yield ready
                ready, segment = segment, []
    if ready or segment:
        yield ready + segment


def _in_another_language(segment: list[Word], language: str) -> bool:
    rivals = _rivals(language)
    if not rivals or not _tell(segment):
        return False
    likelihoods = _likelihoods(_text(segment))
    own = max(likelihoods[one] for one in _alike(language))
    return max(likelihoods[rival] for rival in rivals) > _ODDS * own


def _tell(words: list[Word]) -> bool:
    """Whether there is enough to tell the language by: different words, or characters where these count."""
    different: set[str] = set()
    for word in words:
        different.update([word.text.lower()] if word.weight == 1 else word.text)
        if len(different) >= _TELLING_WORDS:
            return True
    return False


@functools.cache
def _rivals(language: str) -> tuple[str, ...]:
    """The other languages that share a script with this one."""
    scripts, alike = LANGUAGES[language], _alike(language)
    return tuple(other for other, used in LANGUAGES.items() if used & scripts and other not in alike)


def _alike(language: str) -> set[str]:
    return next((group for group in _ALIKE if language in group), {language})


def _with_kana(scripts: frozenset[str]) -> frozenset[str]:
    """Kana among Chinese characters is what tells Japanese from Chinese: the classifier is to see both."""
    return scripts | {"kana"} if "han" in scripts else scripts


def _text(words: Iterator[Word] | list[Word]) -> str:
    return " ".join(word.text for word in words)


def _likelihoods(text: str) -> dict[str, float]:
    """Probability of each language that the classifier knows."""
    ranked: list[tuple[str, float]] = _classifier().rank(text)
    return dict(ranked)


@functools.cache
def _classifier() -> Any:
    """Loaded at the first use: 5 MB of file, about 100 MB in memory."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
