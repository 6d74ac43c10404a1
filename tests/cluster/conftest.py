"""Ray on hosts of their own: everything here that starts it is an engine test."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name != "test_hosts.py":
            item.add_marker(pytest.mark.engine)
