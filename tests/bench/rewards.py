"""Rewards: programs in the sandbox beside plain subprocesses, and math verdicts beside plain math-verify.

python -m tests.bench.rewards
"""

import asyncio

from tests.bench import math_verdicts, sandbox_runs

if __name__ == "__main__":
    asyncio.run(sandbox_runs.main())
    math_verdicts.main()
