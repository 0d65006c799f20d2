"""Rows change while they wait: nobody else gets the email, and no row delays another."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import delete, update

from tests.support.clock import until
from tests.support.fault_site import NO_EMAIL_IS_SENT, FaultSite, OpenSite
from tests.support.scripted_smtp import ScriptedServer
from tests.support.servers import OutboxRun
from tests.support.tables import outbox, users

BROKEN: Mapping[str, Mapping[str, Any]] = {
    "no such template": {"email_template_name": "mail/nobody/wrote/this.txt"},
    "a template of a page": {"email_template_name": "users/login.html"},
    "a sender in two lines": {"from_email": "accounts@example.com\nBcc: x@example.com"},
    "options of the wrong type": [],
}


def without_worker(open_site: OpenSite, mail: ScriptedServer) -> FaultSite:
    """Open a site whose email waits until `flask outbox run` is started."""
    return open_site(mail, OUTBOX_WORKER="none")


def change_row(site: FaultSite, address: str, **values: object) -> None:
    """Change the row that waits for an address."""
    site.tables.run(update(outbox).where(outbox.c.address == address).values(values))


def forget(site: FaultSite, address: str, *, new: str | None = None) -> None:
    """Reckon with nobody, or with another address, where an account was asked for."""
    for number, answer in enumerate(site.people.answers):
        if answer.address == address:
            site.people.answers[number] = replace(answer, known=new is not None, address=new or address)


def test_a_row_that_cannot_be_rendered_fails_and_stops_no_other(open_site: OpenSite, mail: ScriptedServer) -> None:
    site = without_worker(open_site, mail)
    bad = dict(zip(site.people.request_resets(len(BROKEN)), BROKEN.values(), strict=True))
    for address, options in bad.items():
        change_row(site, address, options=options)
    good = site.people.request_resets(3, again=1)
    site.start(OutboxRun)
    site.settle()
    dead = site.tables.dead()
    assert {row.address for row in dead} == set(bad)
    assert all("the email could not be written" in row.failure for row in dead)
    assert len(good) == 3
    assert NO_EMAIL_IS_SENT not in site.log()
    done = "options that break the template, 4 ways, in rows before all others"
    site.check("a row nobody can render", done, "recorded in words and failed at once; those behind them were emailed")


def test_a_row_of_a_kind_that_this_version_does_not_know_waits_for_one_that_does(
    open_site: OpenSite, mail: ScriptedServer
) -> None:
    site = without_worker(open_site, mail)
    strange = site.people.request_resets()
    change_row(site, *strange, kind="of_tomorrow")
    site.people.request_resets(3, again=1)
    site.start(OutboxRun)
    until(lambda: len(site.tables.charged()) == 1 and len(mail.emails) == 3, "mail behind a row of another version")
    assert site.tables.charged()[0].address == strange[0]
    change_row(site, *strange, kind="password_reset")
    site.repaired()
    site.settle()
    seen = "put off by 30 s (not waited for) and kept; those behind it were mailed at once"
    site.check("a kind nobody knows", "`kind` of a newer version, then one that is known", seen)


def test_an_account_that_changes_while_its_email_waits_is_emailed_as_it_is_then(
    open_site: OpenSite, mail: ScriptedServer
) -> None:
    site = without_worker(open_site, mail)
    deleted, deactivated, moved, spelled, unchanged = site.people.request_resets(5, again=1)
    there = {"email": "elsewhere@example.com", "email_key": "elsewhere@example.com"}
    anew, by = spelled.title(), users.c.email
    site.tables.run(delete(users).where(by == deleted))
    site.tables.run(update(users).where(by == deactivated).values(is_active=False))
    site.tables.run(update(users).where(by == moved).values(there))
    site.tables.run(update(users).where(by == spelled).values(email=anew))
    for address in (deleted, deactivated, moved):
        forget(site, address)
    forget(site, spelled, new=anew)
    site.start(OutboxRun)
    site.settle()
    assert {mail.partition(b"To: ")[2].partition(b"\r\n")[0].decode() for mail in mail.received} == {anew, unchanged}
    site.check(
        "account changed while the row waits",
        "deleted; deactivated; with a new address; with its address spelled anew",
        "no mail to the first three, old or new address; the fourth was mailed as it is stored now",
    )
