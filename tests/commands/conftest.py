"""The signal handlers, which commands replace in the process of the tests."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture
def signals_restored() -> Iterator[None]:
    """Put the handlers back that a command replaces in the tests' own process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
