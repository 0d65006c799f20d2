"""Random sequences of account actions, after each of which the site and a model must agree."""

import pytest
from flask import Flask
from hypothesis.stateful import run_state_machine_as_test

from tests.support.account_model import FIRST_WAIT, FREE_FAILURES, LONGEST_WAIT
from tests.support.account_story import Story
from tests.support.app import MakeApp
from tests.support.databases import Database
from tests.support.fuzzing import REQUESTS, trying

STORIES = max(10, REQUESTS // 200)  # on each engine


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    waits = {"LOGIN_FREE_FAILURES": FREE_FAILURES, "LOGIN_FIRST_WAIT": FIRST_WAIT, "LOGIN_LONGEST_WAIT": LONGEST_WAIT}
    mails = {"EMAIL_INTERVAL": 1, "EMAIL_DEADLINE": 0.5, "EMAIL_TIMEOUT": 0.5, "EMAIL_HOURLY": 1000}
    limits = {f"RATELIMIT_{form}": 100_000 for form in ("LOGIN", "RESET", "REGISTER", "CONFIRM")}
    return make_app(SESSION_LIFETIME_DAYS=400, **waits, **mails, **limits)


@pytest.mark.timeout(300 + 10 * STORIES)
def test_whatever_happens_the_site_knows_who_may_do_what(app: Flask, database: Database, time_machine) -> None:
    run_state_machine_as_test(
        lambda: Story(app, database, time_machine), settings=trying(STORIES, stateful_step_count=25)
    )
