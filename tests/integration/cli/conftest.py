"""Commands that run in the tests' own process configure its logging."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Take back what a command set: its handler writes to a standard error that ends with the test."""
    root, ours = logging.getLogger(), logging.getLogger("service")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    for handler in [one for one in root.handlers if one not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
