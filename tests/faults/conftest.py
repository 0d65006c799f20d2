"""The site and the mail server of each test, and the hooks that write the table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests.support.accounting import Late
from tests.support.certificates import Authority
from tests.support.databases import Database
from tests.support.fault_report import FAULT, Gatherer, place_of
from tests.support.fault_site import FaultSite, OpenSite
from tests.support.scripted_smtp import ScriptedServer
from tests.support.servers import Gunicorn, Server

LATE = pytest.StashKey[str]()


@pytest.fixture
def mail() -> Iterator[ScriptedServer]:
    """Return a mail server in clear, all well so far."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def secure_mail(certificates: Authority) -> Iterator[ScriptedServer]:
    """Return a mail server with STARTTLS and a good certificate, all well so far."""
    with ScriptedServer(tls_context=certificates.good) as server:
        yield server


@pytest.fixture
def secure(certificates: Authority, tmp_path: Path) -> dict[str, object]:
    """Return the settings with which a site insists on TLS, trusts the test's authority, and logs in."""
    login = {"EMAIL_USER": "mailer@example.com", "EMAIL_PASS": "abcdefghijklmnop"}
    return {**login, "EMAIL_USE_TLS": "true", "SSL_CERT_FILE": certificates.ca_pem_path(tmp_path)}


@pytest.fixture
def open_site(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[OpenSite]:
    """Return a function that opens a site; it ends with the test, which must have called its `check`.

    `servers` are started at once, one after the other; other keywords are settings of them all.
    """
    sites: list[FaultSite] = []

    def put_down(columns: dict[str, Any]) -> None:
        if LATE in request.node.stash:
            columns["slowest"] += f" (first try: {request.node.stash[LATE]})"
        request.node.user_properties.append((FAULT, {"place": place_of(request.node), **columns}))

    def open_site(
        mail: ScriptedServer, servers: tuple[type[Server], ...] = (Gunicorn,), **settings: object
    ) -> FaultSite:
        site = FaultSite(tmp_path, database, mail, settings, put_down)
        sites.append(site)
        for kind in servers:
            site.start(kind)
        return site

    yield open_site
    for site in sites:
        site.stop()


def pytest_configure(config: pytest.Config) -> None:
    """Gather the rows in the process that sees all reports."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Gatherer(config))


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a fault, and once more where nothing but its POSTs came late: the table tells of both tries."""
    if "open_site" not in getattr(item, "fixturenames", ()):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    if LATE in item.stash:
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that opened a site and never called `check`; note a late answer."""
    try:
        yield
    except Late as late:
        item.stash[LATE] = str(late)
        raise
    checked = any(name == FAULT for name, _ in item.user_properties)
    assert checked or "open_site" not in getattr(item, "fixturenames", ()), "the test ended without `check`"
