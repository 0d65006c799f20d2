"""The clock of the machine on which beat runs is set: beat goes by a clock that nobody can set."""

from pathlib import Path

import pytest

from tests.support.brokers import Redis
from tests.support.celery_site import CelerySite
from tests.support.databases import on_postgresql
from tests.support.fault_site import OpenSite
from tests.support.scripted_smtp import ScriptedServer

LIBFAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), Path("libfaketime"))


@on_postgresql
@pytest.mark.parametrize(("jump", "words"), [("-1h", "an hour back"), ("+1d", "a day on")])
def test_beat_sends_tasks_when_its_clock_is_set(
    open_site: OpenSite, mail: ScriptedServer, tmp_path: Path, jump: str, words: str
) -> None:
    assert LIBFAKETIME.exists(), "libfaketime is not installed"
    clock = tmp_path / "clock"
    clock.write_text("+0", encoding="ascii")
    faked = {"LD_PRELOAD": LIBFAKETIME, "FAKETIME_TIMESTAMP_FILE": clock, "FAKETIME_NO_CACHE": 1}
    with Redis() as broker:
        celery = CelerySite(open_site, mail, broker.url, **faked)
        celery.wait_until_emails_are_sent()
        before = celery.lines()
        for time in (jump, "+0"):
            clock.write_text(time, encoding="ascii")
            celery.site.repaired()
            celery.request_and_wait()
        celery.site.settle()
        lines = tuple(after - number for after, number in zip(celery.lines(), before, strict=True))
        celery.check(f"clock of beat set {words}", "and back again", lines, "mail went out all the time")
