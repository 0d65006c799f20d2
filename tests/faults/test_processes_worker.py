"""A worker is killed, frozen or stopped while it sends an email; eight workers run at once."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from tests.support.accounting import kept_by
from tests.support.clock import PATIENCE, until
from tests.support.fault_site import OpenSite
from tests.support.locks import locked, start_again, wait_until_blocked
from tests.support.scripted_smtp import USUAL, ScriptedServer, drip
from tests.support.servers import FlaskRun, Gunicorn, OutboxRun, Server
from tests.support.tables import outbox
from tests.support.visitors import ACCOUNTS

APART = {"OUTBOX_WORKER": "none", "WEB_CONCURRENCY": 1}  # the web process delivers nothing
SHORT_LEASE = {"OUTBOX_LEASE_SECONDS": 4, "EMAIL_DEADLINE": 3.5}
SLOWLY = [drip(0.1), USUAL]  # 1.4 s for the first, which is long enough to do something to its worker
WHERE = {"RCPT": "before the mail's text", "DOT": "between the final dot and 250"}


def test_a_worker_killed_between_the_250_and_its_commit_causes_one_copy_with_the_same_message_id(
    open_site: OpenSite, mail: ScriptedServer
) -> None:
    mail.behave({"DOT": SLOWLY})
    site = open_site(mail, **APART, **SHORT_LEASE)
    worker = site.start(OutboxRun)
    (address,) = site.people.request_resets(1)
    mail.wait_for_stage("DOT", timeout=PATIENCE)
    with locked(site):
        until(lambda: mail.emails[0].acknowledged, "the 250")
        wait_until_blocked(site, "DELETE FROM outbox")
        worker.kill9()
    (row,) = (row for row in site.tables.waiting() if row.leased)
    site.repaired()
    start_again(site, worker)
    site.people.request_resets(2, again=1)
    site.settle()
    assert [identity for to, identity in kept_by(mail) if to == address] == [f"<{row.message_id}@example.com>"] * 2
    site.check(
        "`kill -9` of the worker between 250 and commit",
        "killed while the database kept it waiting after the 250, then started",
        "sent again at the lease's end, with the same Message-ID; counted once",
        copies=1,
    )


@pytest.mark.parametrize("stage", WHERE)
def test_a_worker_frozen_past_its_lease_is_stood_in_for_and_does_no_harm_when_it_goes_on(
    open_site: OpenSite, mail: ScriptedServer, stage: str
) -> None:
    mail.behave({stage: SLOWLY})
    site = open_site(mail, **APART, **SHORT_LEASE)
    frozen = site.start(OutboxRun)
    site.people.request_resets(1)
    mail.wait_for_stage(stage, timeout=PATIENCE)
    os.kill(frozen.pid, signal.SIGSTOP)
    site.start(OutboxRun)
    site.people.request_resets(2)
    site.settle()
    assert sum(kept.acknowledged for kept in mail.emails) >= 3
    os.kill(frozen.pid, signal.SIGCONT)
    site.repaired()
    site.people.request_resets(2)
    site.settle()
    frozen.terminate()  # it ends after the email under way, so no copy can come later
    assert frozen.wait() == 0
    site.remember_processes()
    site.check(
        f"SIGSTOP of a worker past its lease, {WHERE[stage]}",
        "frozen in mid-send, and continued after another worker had sent the mail",
        "the other one sent it when the lease had ended; counted once",
        copies=1,
    )


@pytest.mark.timeout(240)
@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_worker_frozen_between_its_discard_and_the_commit_keeps_its_row_for_half_a_minute(
    open_site: OpenSite, mail: ScriptedServer
) -> None:
    mail.behave({"DOT": SLOWLY})
    site = open_site(mail, **APART, **SHORT_LEASE)
    frozen = site.start(OutboxRun)
    (address,) = site.people.request_resets(1)
    mail.wait_for_stage("DOT", timeout=PATIENCE)
    with locked(site):
        until(lambda: mail.emails[0].acknowledged, "the 250")
        wait_until_blocked(site, "DELETE FROM outbox")
        os.kill(frozen.pid, signal.SIGSTOP)
    (row,) = (row for row in site.tables.waiting() if row.address == address)
    site.start(OutboxRun)

    def is_put_off() -> bool:
        return [same.leased for same in site.tables.waiting() if same.id == row.id] == [False]

    with site.people.requesting_resets(pause=1):
        until(is_put_off, "another worker that got the row", timeout=90)
    site.settle()
    os.kill(frozen.pid, signal.SIGCONT)
    site.repaired()
    until(lambda: f"Email {row.id} " in frozen.log(), "the end of the send", timeout=60)
    site.people.request_resets(2)
    site.settle()
    site.check(
        "SIGSTOP of a worker in the transaction after the 250",
        "frozen with its row locked, and continued after another worker had sent the mail",
        "PostgreSQL ended the transaction after 30 s, then another worker sent the mail; counted once",
        copies=1,
    )


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_worker_frozen_past_its_lease_before_a_merge_does_not_count_it_again(
    open_site: OpenSite, mail: ScriptedServer
) -> None:
    site = open_site(mail, **APART, **SHORT_LEASE)
    frozen = site.start(OutboxRun)
    (address,) = site.people.request_resets(1, again=1)
    until(lambda: len(site.tables.waiting()) == 1 and site.tables.everything_is_deferred(), "the second row put off")
    with locked(site, "users"):
        site.people.request_reset(address, known=True)
        wait_until_blocked(site, "UPDATE users")
        os.kill(frozen.pid, signal.SIGSTOP)
    site.start(OutboxRun)
    until(lambda: len(site.tables.waiting()) == 1, "a merge by another worker")
    os.kill(frozen.pid, signal.SIGCONT)
    site.repaired()
    site.people.request_resets(2)
    frozen.terminate()  # it ends after the row it has
    assert frozen.wait() == 0
    site.remember_processes()
    site.settle()
    site.check(
        "SIGSTOP of a worker past its lease, before a merge",
        "frozen over a request that the limit merges, and continued after another worker had merged it",
        "the other one merged it when the lease had ended; counted once",
    )


@pytest.mark.parametrize("kind", [Gunicorn, FlaskRun, OutboxRun])
def test_a_worker_that_gets_sigterm_in_mid_send_sends_that_email_once_and_leaves_the_rest(
    open_site: OpenSite, mail: ScriptedServer, kind: type[Server]
) -> None:
    mail.behave({"DOT": [drip(0.4), USUAL]})
    own = {"OUTBOX_WORKER": "none"} if kind is OutboxRun else {}
    site = open_site(mail, (), WEB_CONCURRENCY=1, EMAIL_DEADLINE=20, OUTBOX_LEASE_SECONDS=30)
    server = site.start(Gunicorn if kind is OutboxRun else kind, **own)
    if kind is OutboxRun:
        server = site.start(OutboxRun)
    site.people.request_resets(3)
    mail.wait_for_stage("DOT", timeout=PATIENCE)
    server.terminate()
    assert not mail.emails[0].acknowledged
    assert server.wait() == 0
    assert [kept.acknowledged for kept in mail.emails] == [True]
    assert len(site.tables.waiting()) >= 2
    assert not any(row.leased for row in site.tables.waiting())
    site.repaired()
    start_again(site, server)
    site.people.request_resets(1)
    site.settle()
    site.check("SIGTERM in mid-send", "terminated, then started", "that mail was finished first; the rest waited")


@pytest.mark.timeout(240)
def test_eight_workers_send_five_hundred_emails_each_once(open_site: OpenSite, mail: ScriptedServer) -> None:
    site = open_site(mail, OUTBOX_WORKER="none")
    more = [f"more-{number:03}@example.com" for number in range(500 - len(ACCOUNTS))]
    site.tables.add_accounts(more)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda address: site.people.request_reset(address, known=True), ACCOUNTS + more))
    site.people.request_reset("stranger@example.com", known=False)
    later = datetime.now(UTC) + timedelta(minutes=30)
    site.tables.run(update(outbox).values(run_after=later))  # or the first would be done before the last has started
    workers = [site.start(OutboxRun) for _ in range(8)]
    site.repaired()
    site.tables.let_time_pass()
    site.settle(90)
    assert [worker.log().count(" sent\n") > 0 for worker in workers] == [True] * 8
    site.check("eight workers, 500 mails", "all due at once", "each worker sent some, and no mail was sent twice")
