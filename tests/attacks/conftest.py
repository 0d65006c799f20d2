"""A public site for each file, engine and test process. A test must not disturb the accounts of another."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.app import migrate
from tests.support.databases import Database, Server, SQLite
from tests.support.site import MakeSite, Site, serving
from tests.support.smtp import SMTPServer


@pytest.fixture(scope="module")
def sites(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeSite]:
    """Return a function that starts a site on an engine, once for the same settings.

    All end with the file: to start takes a second, and dozens that only look for email took a processor from the rest.
    """
    running: dict[tuple[object, ...], Site] = {}
    with ExitStack() as stack:

        def start(engine: str, **settings: object) -> Site:
            wanted = (engine, *sorted(settings.items()))
            if wanted not in running:
                folder = tmp_path_factory.mktemp("site")
                mail_server = stack.enter_context(SMTPServer())
                site = Site(folder, _database(engine, folder, request), mail_server, **settings)
                running[wanted] = stack.enter_context(serving(site))
            return running[wanted]

        yield start


@pytest.fixture
def site(engine: str, sites: MakeSite, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Return a site that other tests use too, so the outbox is emptied after each test.

    A file that names SITE_SETTINGS has one with these.
    """
    site = sites(engine, **getattr(request.module, "SITE_SETTINGS", {}))
    yield site
    site.query("DELETE FROM outbox")


def _database(engine: str, folder: Path, request: pytest.FixtureRequest) -> Database:
    if engine == "sqlite":
        migrate(folder)
        return SQLite(folder)
    server: Server = request.getfixturevalue("postgresql_server")
    database = server.create()
    migrate(folder, **database.settings)
    return database
