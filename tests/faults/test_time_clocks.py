"""The clock is set forward or back while the site runs: waiting rows are sent, or expire and are counted."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clock import until
from tests.support.fault_site import FaultSite, OpenSite
from tests.support.scripted_smtp import ScriptedServer
from tests.support.servers import run
from tests.support.visitors import ACCOUNTS

LIBRARY = "/usr/$LIB/faketime/libfaketimeMT.so.1"
SOON = 30.0  # seconds: ten until somebody looks, and a pause of a worker that met a closed port
HOUR, DAY = 3600, 86400
# libfaketime 0.9.10 fails in `clock_nanosleep`, which is what `time.sleep` calls, when it leaves that clock alone.
SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"


@pytest.fixture
def clock(tmp_path: Path) -> "Clock":
    """Return the clock of the servers that are started with its settings."""
    return Clock(tmp_path / "clock")


@pytest.fixture
def site(open_site: OpenSite, mail: ScriptedServer, clock: "Clock") -> Iterator[FaultSite]:
    """Return a site that runs by this clock."""
    site = open_site(mail, **clock.settings)
    # The library itself holds gunicorn up, by 3 s now and then on a busy machine; without it, the same site never did.
    site.soon, site.right_clock = 8.0, False
    yield site
    for server in site.servers:  # in order, or the library's shared memory would stay behind
        server.terminate()
        server.wait()


class Clock:
    """The wall clock of some processes, as `date -s` sets it for a machine: it jumps while they run.

    Args:
        folder: for what the processes read.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._file = folder / "clock"
        self.set(0)
        (folder / "sitecustomize.py").write_text(SLEEP, encoding="utf-8")
        self.settings = {
            "LD_PRELOAD": LIBRARY,
            "PYTHONPATH": folder,
            "FAKETIME_TIMESTAMP_FILE": self._file,
            "FAKETIME_NO_CACHE": 1,
            # Nobody sets these: pauses go by the monotonic clock, and gunicorn's heart beats in a file's times.
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
            "NO_FAKE_STAT": 1,
        }
        self.set(DAY)
        moment = float(run(folder, "-c", "import time; print(time.time())", **self.settings).stdout)
        if moment < time.time() + HOUR:
            pytest.skip("libfaketime is not installed")
        self.set(0)

    def set(self, seconds: int) -> None:
        """Set it on by so many seconds from the right time, or back where they are negative."""
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{seconds:+d}\n")
        draft.replace(self._file)


@pytest.mark.parametrize(("step", "words"), [(HOUR, "an hour"), (DAY + HOUR, "a day and an hour")])
def test_email_goes_on_when_the_clock_is_set_on_and_back_again(
    site: FaultSite, mail: ScriptedServer, clock: Clock, step: int, words: str
) -> None:
    site.people.request_resets(2)
    site.settle()
    mail.go_down()
    for address in ACCOUNTS[-2:]:  # these wait while the clock is set on
        site.people.request_reset(address, known=True)
    site.wait_until_no_email_is_sent()
    until(lambda: not any(row.leased for row in site.tables.waiting()), "mail that nobody tries to send")
    clock.set(step)
    expired = 2 if step > DAY else 0
    until(lambda: site.tables.counted().get("expired", 0) == expired, "the end of what is too old now", SOON)
    mail.restart()
    early = site.people.request_resets(2)
    until(lambda: not site.tables.waiting(), "an outbox in which nothing waits, while the clock is ahead", SOON)
    mail.go_down()
    site.people.request_resets(2)  # and these while it is set back
    clock.set(0)
    mail.restart()
    site.repaired()
    for address in early:  # emailed a while from now, as it seems
        site.people.request_reset(address, known=True)
        site.people.request_reset(f"no-{address}", known=False)
    site.people.request_resets(1)
    until_all_is_sent(site)
    ends = "the 2 that had waited for a day by that clock expired" if expired else "all were mailed"
    seen = f"nothing waited for the old time; {ends}"
    site.check(f"clock set on by {words}", "then back, each time with mail waiting", seen)


@pytest.mark.parametrize(("step", "words"), [(HOUR, "an hour"), (DAY, "a day")])
def test_email_goes_on_when_the_clock_is_set_back_and_on_again(
    site: FaultSite, mail: ScriptedServer, clock: Clock, step: int, words: str
) -> None:
    early = site.people.request_resets(2)
    site.settle()
    mail.go_down()
    site.people.request_resets(2)
    clock.set(-step)
    mail.restart()
    for address in early:
        site.people.request_reset(address, known=True)
        site.people.request_reset(f"no-{address}", known=False)
    until_all_is_sent(site)
    clock.set(0)
    site.repaired()
    site.people.request_resets(2)
    until_all_is_sent(site)
    site.check(f"clock set back by {words}", "with mail waiting, then right again", "nothing waited for the old time")


def until_all_is_sent(site: FaultSite) -> None:
    """Wait until nothing waits, and let nothing off its wait."""
    until(lambda: not site.tables.waiting(), "an outbox in which nothing waits", SOON)
    site.settle()
