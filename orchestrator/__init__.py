"""Orchestrator: the recipe, the loop, the run directory and the `rayzero` command."""

import os

# Ray reads these once, when it is imported, so they stand before anything that imports it.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Actors that ask for no GPU see none: they must not take one by accident. Ray warns unless told so.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
