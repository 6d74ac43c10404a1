"""Readability: why a person would rather not read a thought. Named flags, for filters and as a reward.

DeepSeek-R1 drops chains of thought with mixed languages, long paragraphs and code blocks from what it samples for
fine-tuning (arXiv:2501.12948, section 2.3.3); the flags here are those, and a few that go with them.
"""

from collections.abc import Sequence

from rewards.text.language import language_consistency
from rewards.text.prose import sentences, split_code
from rewards.text.repetition import repetition
from rewards.text.response import read_response
from rollout.errors import InputError

FLAGS = ("mixed_languages", "long_paragraph", "code_blocks", "code_only", "repetitive")
DEFAULT_FLAGS = ("mixed_languages", "long_paragraph", "code_only", "repetitive")


def readability(
    prompt: str,
    completion: str,
    reference: str = "",
    *,
    flags: Sequence[str] = DEFAULT_FLAGS,
    target: str = "prompt",
    min_consistency: float = 0.9,
    max_paragraph: int = 400,
) -> dict[str, float]:
    """1.0 when none of `flags` is raised, else 0.0; and every flag as 0.0 or 1.0. Linear in the length of the text.

    The thought is scored, and the reply where there is none.

    - `mixed_languages`: language consistency (`rewards.text.language`) below `min_consistency`.
    - `long_paragraph`: more than `max_paragraph` words without a line break, code and formulas left out; where a script
      has no word spaces, two characters are a word. Or ten times as many characters of anything but code.
    - `code_blocks`: a fenced block.
    - `code_only`: a fenced block and hardly any prose (fewer than 5 words) round it.
    - `repetitive`: `rewards.text.repetition` gives less than 0.5.

    Args:
        prompt: says the language where `target == "prompt"`.
        completion: the text that is scored.
        reference: not used.
        flags: those that `value` is made of.
        target: as in `language_consistency`.
        min_consistency: share of target-language words, in [0, 1].
        max_paragraph: words.

    Raises:
        InputError: an unknown flag or target, or a bound out of its range.
    """
    if not 0 <= min_consistency <= 1 or max_paragraph < 1:
        raise InputError(
            f"readability: min_consistency = {min_consistency:g}, max_paragraph = {max_paragraph}: the one is within 0 and 1, "
            "the other at least 1"
        )
    unknown = [flag for flag in flags if flag not in FLAGS]
    if unknown:
        raise InputError(f"readability: flags = {unknown[0]!r} is not one of {', '.join(FLAGS)}")
    response = read_response(prompt, completion)
    text = response.thought or response.reply.strip()
    prose, blocks = split_code(text)
    raised = {
        "mixed_languages": language_consistency(prompt, completion, target=target)["value"] < min_consistency,
        "long_paragraph": any(
            len(line) > 10 * max_paragraph or _words(line) > max_paragraph for line in prose.split("\n")
        ),
        "code_blocks": bool(blocks),
        "code_only": bool(blocks) and _words(prose) < 5,
        "repetitive": repetition(prompt, text)["value"] < 0.5,
    }
    return {"value": float(not any(raised[flag] for flag in flags))} | {name: float(on) for name, on in raised.items()}


def _words(text: str) -> float:
    return sum(1 if word.weight == 1 else word.weight / 2 for words in sentences(text) for word in words)
