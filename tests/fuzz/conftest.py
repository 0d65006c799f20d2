"""A site with the accounts that random requests are sent for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from tests.support.databases import Database
from tests.support.fuzz_accounts import Cast
from tests.support.site import Site, serving
from tests.support.smtp import SMTPServer


@pytest.fixture
def cast(database: Database, tmp_path: Path) -> Iterator[Cast]:
    """Return the people of a site of their own, which count no emails an hour."""
    with SMTPServer() as mail_server:
        mails = {"EMAIL_HOURLY": 1000, "PASSWORD_RESET_TIMEOUT": 604800, "OUTBOX_POLL_SECONDS": 0.05}
        site = Site(tmp_path, database, mail_server, **mails)
        site.server.options = ("--access-logfile", "-")
        with serving(site):
            yield Cast(site)


@pytest.fixture
def rules(app: Flask) -> list[str]:
    """Return every rule of the application's map."""
    return sorted({rule.rule for rule in app.url_map.iter_rules()})
