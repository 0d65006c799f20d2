"""A mail server rejects single emails: those are retried or fail, and delay no other."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.clock import until
from tests.support.fault_site import NO_EMAIL_IS_SENT, FaultSite, OpenSite
from tests.support.scripted_smtp import CLOSE, SILENT, USUAL, ScriptedServer, drip
from tests.support.servers import run

BACKED_OFF = "each charged once and deferred by 30 s (not waited for), then sent"


def wait_until_charged(site: FaultSite, number: int) -> None:
    """Wait until so many emails have failed once, and are left alone for half a minute."""
    until(lambda: len(site.tables.charged()) == number, f"{number} mails that have failed")
    for row in site.tables.charged():
        assert row.attempts == 1
        assert timedelta(seconds=20) < row.run_after - datetime.now(UTC) <= timedelta(seconds=30)


@pytest.mark.parametrize(
    ("fault", "stage", "reply"),
    [
        ("450 at RCPT (greylisting)", "RCPT", "450 4.2.0 Greylisted, try again later"),
        ("451 at RCPT", "RCPT", "451 4.7.1 Greylisted, try again later"),
        ("452 at RCPT", "RCPT", "452 4.2.2 Mailbox full"),
        ("451 after DATA", "DOT", "451 4.3.0 Local error"),
    ],
)
def test_an_email_rejected_for_now_is_tried_again_and_arrives_once(
    open_site: OpenSite, mail: ScriptedServer, fault: str, stage: str, reply: str
) -> None:
    mail.behave({stage: reply})
    site = open_site(mail)
    site.people.request_resets(3)
    wait_until_charged(site, 3)
    assert mail.stages.count(stage) == 3
    mail.behave()
    site.repaired()
    site.people.request_resets(2, again=2)
    site.settle()
    assert NO_EMAIL_IS_SENT not in site.log()
    site.check(fault, f"`{reply}` to 3 mails, then all as usual", BACKED_OFF)


@pytest.mark.parametrize(
    ("fault", "stage", "reply", "why"),
    [
        ("550 at RCPT", "RCPT", "550 5.1.1 No such user", "refused the recipient (550)"),
        ("554 after DATA", "DOT", "554 5.7.1 Spam", "refused the email (554)"),
    ],
)
def test_an_email_that_is_refused_for_good_is_tried_once_and_recorded(
    open_site: OpenSite, mail: ScriptedServer, fault: str, stage: str, reply: str, why: str
) -> None:
    mail.behave({stage: reply})
    site = open_site(mail)
    site.people.request_resets(3)
    until(lambda: len(site.tables.dead()) == 3, "3 emails that failed")
    mail.behave()
    site.repaired()
    site.people.request_resets(2, again=2)
    site.settle()
    time.sleep(1)  # of ten looks into the outbox
    assert mail.stages.count(stage) == 3 + len([kept for kept in mail.emails if kept.kept])
    status = run(site.folder, "-m", "flask", "outbox", "status", **site.settings).stdout
    assert status.count(why) == 3
    site.check(fault, f"`{reply}` to 3 mails, then all as usual", "each tried once, dead, in `flask outbox status`")


@pytest.mark.parametrize(
    ("fault", "stage", "behaviour"),
    [
        ("silent at RCPT", "RCPT", SILENT),
        ("silent at DATA", "DATA", SILENT),
        ("one byte a second at DATA", "DATA", drip(1.0, "354 Go", endless=True)),
        ("cut in mid-DATA", "BODY", CLOSE),
    ],
)
def test_an_email_during_which_the_connection_fails_waits_alone(
    open_site: OpenSite, mail: ScriptedServer, fault: str, stage: str, behaviour
) -> None:
    mail.behave({stage: [behaviour, behaviour, USUAL]})
    site = open_site(mail, EMAIL_DEADLINE=3)
    site.people.request_resets(5, again=2)
    wait_until_charged(site, 2)
    until(lambda: len(mail.emails) >= 3, "the mails behind those")
    site.repaired()
    site.people.request_resets(1)
    site.settle()
    assert NO_EMAIL_IS_SENT not in site.log()
    site.check(fault, "to 2 mails, then all as usual", f"the others went out at once; the 2 were {BACKED_OFF}")
