"""For all tests."""

import orchestrator  # noqa: F401  # sets Ray's defaults before anything imports Ray
