"""Random requests, one after the other, at a real server."""

import pytest
from hypothesis import example, given

from tests.support.fuzz_accounts import Cast
from tests.support.fuzzing import ENGINES, REQUESTS, trying
from tests.support.odd_requests import OddRequest, odd_requests, whole_requests
from tests.support.request_checks import RequestChecks

EACH = REQUESTS // ENGINES
WARM = EACH // 5
GROWTH = 1.1
# What came of the forms that were filled in rightly.
DONE = {"alice: password_hash", "alice: last_login", "bob: password_hash", "dan: password_hash", "dan: security_stamp"}


@pytest.mark.timeout(600 + EACH)
def test_no_request_breaks_the_site_or_anybodys_account(cast: Cast, rules: list[str]) -> None:
    checks = RequestChecks(cast)
    checks.warm_up()
    warm: list[int] = []

    @trying(EACH)
    @given(odd_requests(rules))
    def send(request: OddRequest) -> None:
        if checks.sent == WARM:
            warm.append(checks.memory())
        checks.send(request)

    for request in whole_requests():
        send = example(request)(send)
    send()
    checks.emails_were_requested()
    checks.no_secret_was_logged()
    assert checks.memory() < GROWTH * warm[0]
    assert checks.done >= DONE
    assert all(checks.requested.values())
