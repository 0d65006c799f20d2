"""How much is tried: some hundreds of requests, the same ones each time, or as many as REQUESTS says, others each time.

A run of the second kind keeps what failed in `.hypothesis/`, and begins with it the next time.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from hypothesis import HealthCheck, Phase, settings

from tests.attacks.site import Site, serving
from tests.databases import Database
from tests.fuzz.cast import Cast
from tests.smtp.servers import SMTPServer

REQUESTS = int(os.environ.get("REQUESTS", "500"))  # over both engines
EXPLORES = "REQUESTS" in os.environ
ENGINES = 2


def trying(examples: int, **more: object) -> settings:
    """Return how hypothesis is to try so many examples."""
    repeatable = {} if EXPLORES else {"derandomize": True, "database": None}
    return settings(
        max_examples=examples,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        phases=[phase for phase in Phase if phase is not Phase.explain],  # it takes as long as all the rest
        suppress_health_check=list(HealthCheck),
        **repeatable,
        **more,
    )


@pytest.fixture
def cast(database: Database, tmp_path: Path) -> Iterator[Cast]:
    """Return the people of a site of their own, which count no mails an hour."""
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
