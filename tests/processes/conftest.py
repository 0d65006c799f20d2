"""Server processes that end with their test."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import Database
from tests.support.instance import OBSERVER, Instance, Serve
from tests.support.servers import Server

OUR_FAULT = re.compile(r"^.*(?:Traceback|Warning:|Delivery failed).*$", re.MULTILINE)


@pytest.fixture
def instance(database: Database, tmp_path: Path) -> "Instance":
    """Return an instance folder with a migrated, empty database."""
    return Instance(tmp_path, database)


@pytest.fixture
def empty_instance(empty_database: Database, tmp_path: Path) -> "Instance":
    """Return an instance folder with a database that has no tables."""
    return Instance(tmp_path, empty_database)


@pytest.fixture
def serve(database: Database, tmp_path: Path) -> Iterator[Serve]:
    """Return a function that starts a server on the test's instance folder and database; all end with the test.

    `visit=False` asks for no page, not even to see whether it answers. `clean_log=False` is for a test that provokes a
    traceback; nobody else may print one, or a warning.
    """
    started: list[tuple[Server, bool]] = []

    def start(
        kind: type[Server], *options: str, visit: bool = True, clean_log: bool = True, **settings: object
    ) -> Server:
        server = kind(tmp_path, *options, **{**database.settings, **settings})  # type: ignore[arg-type]
        started.append((server, clean_log))
        return server.start() if visit else server.launch()

    yield start
    for server, _ in started:
        server.stop_for_certain()
    for server, clean_log in started:
        assert not (clean_log and OUR_FAULT.search(server.log())), server.log()


@pytest.fixture
def observer(tmp_path: Path) -> Path:
    """Return a folder that, in PYTHONPATH, makes a process tell when it starts the worker."""
    folder = tmp_path / "observer"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(OBSERVER, encoding="utf-8")
    return folder
