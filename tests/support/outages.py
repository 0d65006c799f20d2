"""What visitors and emails do while a store is unavailable, the same for all stores.

It decides how long a worker may need afterwards: a lease, and the pause of a worker that failed repeatedly.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.clock import PATIENCE
from tests.support.fault_site import FaultSite
from tests.support.scripted_smtp import drip

LONGEST_PAUSE = 120.0  # seconds: a lease of 60, a pause of 30, and what a try takes
SEEN = "503 to everybody; the mail under way came once, the rest went out by itself"


def answered_in(site: FaultSite, seconds: float) -> set[int]:
    """Let visitors request resets for some seconds, and return the statuses of the answers."""
    site.open_a_link()  # an error must not repeat its key either
    before, end = len(site.people.answers), time.monotonic() + seconds
    while time.monotonic() < end:
        site.people.request_resets()
        time.sleep(0.2)
    return {answer.status for answer in site.people.answers[before:]}


@contextmanager
def email_being_sent(site: FaultSite) -> Iterator[None]:
    """Run the block while the mail server takes three seconds to accept an email."""
    site.mail.behave({"DOT": drip(0.2, "250 2.0.0 Taken")})
    dots = site.mail.stages.count("DOT")
    site.people.request_resets()
    site.mail.wait_for_stage("DOT", dots + 1, timeout=PATIENCE)
    yield
    site.mail.behave()
