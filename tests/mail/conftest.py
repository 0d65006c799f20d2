"""A check that no socket stays open."""

import gc
import os
import stat
from collections.abc import Iterator

import pytest

from tests.support.clock import waited_for
from tests.support.databases import Database


@pytest.fixture
def no_socket_left(database: Database) -> Iterator[None]:
    """Every test leaves as many sockets as it found, whatever failed in it.

    With its database there already: the first one on PostgreSQL opens connections that stay for the next ones.
    """
    before = len(open_sockets())
    yield
    gc.collect()  # so that a forgotten socket warns here, and not in some other test
    # Threads of earlier tests may have one for a moment; a forgotten one stays.
    assert waited_for(lambda: len(open_sockets()) <= before), open_sockets()


def open_sockets() -> list[str]:
    return [descriptor for descriptor in map(str, range(512)) if is_socket(descriptor)]


def is_socket(descriptor: str) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(int(descriptor)).st_mode)
    except OSError:
        return False
