"""Defaults of Ray's environment variables; what the environment says already stays.

Ray reads some of them once, when it is imported. So every module that imports Ray imports this one before it: ruff's import
sorting puts it there (`tool.ruff.lint.isort` in pyproject.toml), and tests/rollout/test_ray_defaults.py finds a module
that forgets it.
"""

import os

DEFAULTS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Actors that ask for no GPU see none: they must not take one by accident. Ray warns unless told so.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # Ray's store keeps a kilobyte or so of each of the newest calls, a step is some dozens: a hundred thousand are 100 MB.
    "RAY_task_events_max_num_task_in_gcs": "10000",
}

for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
