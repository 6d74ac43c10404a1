"""The zygote's first lines."""

import sys

from rewards.sandbox.inside import forks, stream_paths


def main() -> None:
    forks.keep()
    stream_paths.arm()
    # Only now: with it comes what registers code that runs after a fork.
    from rewards.sandbox.inside import zygote

    sys.path.pop()  # where this package is found; cells see the standard library only
    zygote.main()
