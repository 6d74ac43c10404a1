"""The R1 form: exactly one think part, then exactly one answer part, nothing else (DeepSeek-R1, arXiv:2501.12948)."""

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)


def format_reward(completion: str) -> float:
    """1.0 when the completion is `<think>…</think><answer>…</answer>` up to white space around the parts, else 0.0.

    Both parts must hold something. Linear in the length of the text.
    """
    text = completion.strip()
    if any(text.count(tag) != 1 for tag in TAGS):
        return 0.0
    if not (text.startswith(THINK_OPEN) and text.endswith(ANSWER_CLOSE)):
        return 0.0
    thought, _, rest = text.removeprefix(THINK_OPEN).partition(THINK_CLOSE)
    rest = rest.strip()
    if not rest.startswith(ANSWER_OPEN):
        return 0.0
    answer = rest.removeprefix(ANSWER_OPEN).removesuffix(ANSWER_CLOSE)
    return 1.0 if thought.strip() and answer.strip() else 0.0
