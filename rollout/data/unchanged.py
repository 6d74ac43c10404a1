"""Whether what a run reads is still what it was begun with: a run that goes on with other rows is another run."""

from collections.abc import Mapping

from rollout.errors import InputError

WAY_OUT = "put it back to resume this run, or start a new run directory"


def check_same(key: str, value: str, same: bool) -> None:
    """Raises InputError where what a setting names is not what it was."""
    if not same:
        raise InputError(
            f"{key} = {value!r} is another since the run was started (its text, or what is said of it); {WAY_OUT}"
        )


def check_unchanged(noun: str, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Compare the digests of sources, by name.

    Args:
        noun: what the sources hold, in the plural.

    Raises:
        InputError: there are other sources, or one of them holds something else.
    """
    if set(before) != set(now):
        was, are = (", ".join(sorted(names)) for names in (before, now))
        raise InputError(f"the run was started with data sources {was}, now they are {are}; {WAY_OUT}")
    for name, digest in now.items():
        if before[name] != digest:
            raise InputError(
                f"the {noun} of data source {name!r} (its data, template, tokenizer or length limit) "
                f"changed since the run was started; {WAY_OUT}"
            )
