"""Length: DAPO's soft overlong punishment (arXiv:2503.14476, equation 13)."""

from rollout.errors import InputError


def soft_overlong(
    prompt: str,
    completion: str,
    reference: str = "",
    *,
    max_tokens: int,
    buffer: int,
    tokens: int | None = None,
) -> float:
    """Nothing for a length that leaves the buffer untouched, then less with every token; in [−1, 0].

        0                                 L ≤ max_tokens − buffer
        (max_tokens − buffer − L) / buffer   up to max_tokens
        −1                                L > max_tokens

    Args:
        prompt: not used.
        completion: not used: text does not say how many tokens the policy spent on it.
        reference: not used.
        max_tokens: L_max of the paper, the longest completion.
        buffer: L_cache of the paper, the last tokens of it, in which the punishment grows; 1 … max_tokens.
        tokens: L, tokens of the completion.

    Raises:
        InputError: `buffer` is not within `max_tokens`, or the number of tokens is not known.
    """
    if not 1 <= buffer <= max_tokens:
        raise InputError(f"length: buffer = {buffer} must be between 1 and max_tokens = {max_tokens}")
    if tokens is None:
        raise InputError("length: the number of tokens is not known; give `tokens`, or leave the length out")
    if tokens > max_tokens:
        return -1.0
    return min(0.0, (max_tokens - buffer - tokens) / buffer)
