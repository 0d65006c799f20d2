"""A real browser and two real sites in each test process, and a check of every page that is opened."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import BrowserContext, BrowserType, ConsoleMessage, Page, Request, expect

from tests.support.browser import CHROMIUM, LAUNCH
from tests.support.databases import Database, Server, SQLite
from tests.support.site import Site, running_locally

NewContext = Callable[..., BrowserContext]
PATIENCE = 20_000  # milliseconds, for machines with more to do
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """Start the system's Chromium; nothing is downloaded."""
    if not CHROMIUM.exists():
        pytest.skip(f"There is no {CHROMIUM}. Install it with: sudo apt-get install chromium")
    return {**browser_type_launch_args, **LAUNCH}


@pytest.fixture(scope="module")
def site_on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return the running site that keeps its rows in SQLite."""
    folder = tmp_path_factory.mktemp("site")
    yield from started(folder, SQLite(folder))


@pytest.fixture(scope="module")
def site_on_postgresql(tmp_path_factory: pytest.TempPathFactory, postgresql_server: Server) -> Iterator[Site]:
    """Return the running site that keeps its rows in PostgreSQL."""
    yield from started(tmp_path_factory.mktemp("site"), postgresql_server.create())


def started(folder: Path, database: Database) -> Iterator[Site]:
    """Run a site; whatever went wrong in it fails the last test."""
    with running_locally(folder, database) as site:
        yield site
    assert "Traceback" not in site.log(), site.log()


@pytest.fixture
def site(engine: str, browser_type_launch_args: dict[str, Any], request: pytest.FixtureRequest) -> Site:
    """Return the running site, on the test's engine."""
    site: Site = request.getfixturevalue(f"site_on_{engine}")
    return site


@pytest.fixture(scope="session")
def base_url() -> None:
    """Return nothing: `new_context` knows the site, and the plugin's own fixture is a deprecation warning."""


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args: dict[str, Any]) -> dict[str, Any]:
    """Open pages without motion, so that colours are final as soon as a page is shown."""
    return {**browser_context_args, "reduced_motion": "reduce"}


@pytest.fixture
def complaints() -> list[str]:
    """Return what the browser complained of; a test that expects a complaint takes it out."""
    return []


@pytest.fixture
def new_context(new_context: NewContext, site: Site, complaints: list[str]) -> Iterator[NewContext]:
    """Watch every page of every test: nothing on the console, no refused content, no request to another host."""

    def note_message(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(message.text)

    def note_request(request: Request) -> None:
        if not request.url.startswith((site.url + "/", "data:")):
            complaints.append(f"request to {request.url}")

    def watched(**options: Any) -> BrowserContext:
        context = new_context(base_url=site.url, **options)
        context.set_default_timeout(PATIENCE)
        context.on("console", note_message)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        context.on("request", note_request)
        return context

    yield watched
    assert complaints == []


@pytest.fixture
def keeping_page(browser_type: BrowserType, site: Site) -> Iterator[Page]:
    """Return a page of a browser with a back/forward cache, which Playwright's own browser switches off.

    `kept` is true in a page that comes from the cache. Playwright's own `go_back` does not handle such a page.
    """
    options = {**LAUNCH, "ignore_default_args": ["--disable-back-forward-cache"]}
    with browser_type.launch(**options) as browser:
        page = browser.new_page(base_url=site.url)
        page.set_default_timeout(PATIENCE)
        page.add_init_script("addEventListener('pageshow', event => { window.kept = event.persisted; })")
        yield page


@pytest.fixture
def address() -> str:
    """Return an address nobody else uses: an account gets one email a minute."""
    return f"{uuid4().hex[:12]}@example.com"
