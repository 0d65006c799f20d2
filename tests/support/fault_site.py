"""A site under a fault: a database, real server processes, visitors, and a mail server that misbehaves.

A test opens one, breaks something, lets visitors send requests, repairs it, calls `repaired`, and ends with `check`,
which asserts what must be true after every fault and reports the row of the table.

    def test_a_sentence_about_what_holds(open_site, mail):      # in test_<group>_<rest>.py, see `fault_report.GROUPS`
        site = open_site(mail, OUTBOX_LEASE_SECONDS=6)          # gunicorn with two workers, on SQLite
        site.people.request_resets(3, again=2)                  # three accounts and three strangers, three times each
        ...                                                     # break something, and see what the test is about
        with site.people.requesting_resets():                  # visitors who request resets meanwhile
            ...
        site.repaired()                                         # the recovery time counts from here
        site.settle()
        site.check("the fault", "what was done", "what was seen", copies=1)
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support import accounting
from tests.support.clock import PATIENCE, until
from tests.support.databases import Database
from tests.support.instance import Instance
from tests.support.scripted_smtp import ScriptedServer
from tests.support.servers import Browser, FlaskRun, Gunicorn, OutboxRun, Server
from tests.support.tables import Tables
from tests.support.visitors import ACCOUNTS, People

OpenSite = Callable[..., "FaultSite"]

OUR_FAULT = re.compile(r"^.*(?:Traceback|Warning:|Delivery failed).*$", re.MULTILINE)
# Each request with its path: a live link in it must be redacted.
ACCESS_LOG = ("--access-logfile", "-")
NO_EMAIL_IS_SENT = "No email is sent"


NAMES = {Gunicorn: "gunicorn", FlaskRun: "`flask run`", OutboxRun: "`flask outbox run`"}
ENGINES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


class FaultSite(Instance):
    """An installation in a folder of its own.

    Args:
        folder: the instance folder.
        database: with its tables.
        email: the server that gets the email.
        settings: for every process; None leaves one out.
        report: takes what `check` has seen, as the columns of the table.

    A test may change the rules before `check`: `statuses` that people may be answered (302),
    `soon` (1 s) where not the email is broken but what a request itself waits for, `right_clock = False` where the
    moments in the tables are not this machine's, and `remember_processes()` after it ended or replaced some itself.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        mail: ScriptedServer,
        settings: Mapping[str, object],
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        usual = {
            "EMAIL_HOST": "localhost",
            "EMAIL_PORT": mail.port,
            "EMAIL_FROM": "accounts@example.com",
            "EMAIL_TIMEOUT": 2,
            "EMAIL_DEADLINE": 5,
            "RATELIMIT_ENABLED": "false",  # everybody here comes from one machine
        }
        super().__init__(folder, database, **{**usual, **settings})
        self.mail, self.tables = mail, Tables(database, folder)
        self.servers: dict[Server, set[int]] = {}
        self.statuses, self.soon, self.right_clock = {302}, accounting.SOON, True
        self.tables.add_accounts(ACCOUNTS)
        self._report = report
        self._repaired_at = self._well_at = 0.0

    def start(self, kind: type[Server], *options: str, prefix: Sequence[str] = (), **settings: object) -> Server:
        """Start a server, wait until it answers, and remember its processes.

        Args:
            kind: Gunicorn, FlaskRun or OutboxRun. The first one that serves pages is the one people visit.
            options: of its command line.
            prefix: a command to run it with, such as `faketime -f +1h`.
            settings: of this server alone.
        """
        # `flask outbox run` writes links to the site that people visit, and signs them with its key.
        shared = self.people.server.own_settings() if kind is OutboxRun else {}
        options = (*ACCESS_LOG, *options) if kind is Gunicorn else options
        server = kind(self.folder, *options, **{**shared, **self.settings, **settings})
        server.prefix = prefix
        self.servers[server] = set()
        server.start()
        number = 1 + int(str(server.settings.get("WEB_CONCURRENCY", 2))) if kind is Gunicorn else 1
        until(lambda: len(server.processes()) == number, f"{number} processes of {server}")
        self.servers[server] = set(server.processes())
        if kind is not OutboxRun and not hasattr(self, "people"):
            self.people = People(server, ACCOUNTS)
        return server

    def remember_processes(self) -> None:
        """Take the processes that run now for those that must run at the end, after the test itself ended some."""
        self.servers = {server: set(server.processes()) for server in self.servers}

    def stop(self) -> None:
        """End everything, whatever happened."""
        for server in self.servers:
            server.stop_for_certain()
        self.tables.engine.dispose()

    def log(self) -> str:
        """Return what all processes have printed."""
        return "".join(server.log() for server in self.servers)

    def wait_until_no_email_is_sent(self) -> str:
        """Wait until a worker says that the mail server takes no email; return the reason it gives."""
        until(lambda: NO_EMAIL_IS_SENT in self.log(), "a warning that no email is sent")
        return self.log().partition(NO_EMAIL_IS_SENT)[2].partition("\n")[0]

    def open_a_link(self) -> None:
        """Open the newest link that was emailed, if one was; whatever is answered, no log may have it."""
        link = accounting.link_in(self.mail)
        if link:
            server = self.people.server
            Browser(server).get(link)
            until(lambda: "/[redacted]" in server.log() or not server.log(), "the request in the log, without its key")

    def repaired(self) -> None:
        """Note that the fault is over: the recovery time counts from here."""
        self._repaired_at = time.monotonic()

    def settle(self, timeout: float = PATIENCE) -> None:
        """Wait until the outbox is empty; rows that are deferred or retried later are made due at once."""
        until(self._is_settled, "an outbox in which nothing waits", timeout)
        self._well_at = time.monotonic()

    def check(self, fault: str, done: str, seen: str, *, copies: int = 0) -> None:
        """Assert what must be true after every fault, and report the row.

        Args:
            fault: its name in the table.
            done: what was done to the system.
            seen: the outcome in words; what the test itself has asserted.
            copies: how many second copies are allowed: one for each kill, freeze or acknowledgement lost in a send.
        """
        answers = list(self.people.answers)
        accounting.assert_answered_alike(answers, self.statuses)
        ends = accounting.assert_accounted_for(answers, self.mail, self.tables)
        unknown = sum(answer.status == 302 for answer in answers if not answer.known)
        for _ in range(4):  # two processes answer
            accounting.assert_counted(ends, unknown, Browser(self.people.server).get("/metrics").text)
        if self.right_clock:
            accounting.assert_merged_into_email(self.mail, self.tables)
        more = accounting.assert_copies(self.mail, copies)
        self.open_a_link()
        accounting.assert_no_token(self.mail, self.servers)
        for server, processes in self.servers.items():
            assert set(server.processes()) == processes, f"{server} was restarted, or has ended:\n{server.log()}"
            assert not OUR_FAULT.search(server.log()), server.log()
        accounting.assert_answered_soon(answers, self.soon)
        self._report(
            {
                "fault": fault,
                "done": done,
                "where": self._where(),
                "requests": len(answers),
                "slowest": f"{1000 * max(answer.seconds for answer in answers):.0f} ms",
                "mails": ends["mailed"],
                "copies": more,
                "merged": ends["merged"],
                "expired": ends["expired"],
                "refused": ends["refused"],
                "well_after": f"{self._well_at - self._repaired_at:.1f} s" if self._repaired_at else "–",
                "seen": seen,
            }
        )

    def _where(self) -> str:
        kinds = Counter(NAMES[type(server)] for server in self.servers)
        programs = " and ".join(name if number == 1 else f"{number} × {name}" for name, number in kinds.items())
        return f"{programs}, {ENGINES[self.tables.engine.dialect.name]}"

    def _is_settled(self) -> bool:
        if not self.tables.waiting():
            return True
        if self.tables.everything_is_deferred():
            if self.right_clock:
                self.tables.assert_nothing_waits_too_long()
            self.tables.let_time_pass()
        time.sleep(0.1)
        return False
