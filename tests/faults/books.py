"""What must hold after every fault, reckoned from what people were answered, what the mail server has, and the tables.

Decides what counts as a loss, as a second copy and as a leak. Functions fail with a sentence; they wait for nothing.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from email import message_from_bytes, policy

from tests.faults.people import Answer
from tests.faults.tables import Tables
from tests.processes.servers import Server
from tests.smtp.servers import ScriptedServer

SOON = 1.0  # seconds
# As `pwreset/redaction.py` knows it: six characters of time, a dot, 43 of signature.
TOKEN = re.compile(r"[A-Za-z0-9_-]{6,7}\.([A-Za-z0-9_-]{43})")
ENDS = ("merged", "expired", "refused")


class Late(AssertionError):
    """A POST took a second or more. The machine may have been busy with other things, so this alone may be repeated."""


def assert_answered_soon(answers: Iterable[Answer], soon: float) -> None:
    """Everybody was answered in less than so many seconds.

    Raises:
        Late: where somebody was not.
    """
    slowest = max(answer.seconds for answer in answers)
    if slowest >= soon:
        msg = f"{1000 * slowest:.0f} ms"
        raise Late(msg)


def assert_answered_alike(answers: Iterable[Answer], statuses: Collection[int]) -> None:
    """No answer tells whether an address has an account, and each has a status that is allowed."""
    odd = [answer for answer in answers if answer.status not in statuses]
    assert not odd, f"not answered with {statuses}: {odd[:3]}"
    known = {(answer.status, answer.shape) for answer in answers if answer.known}
    unknown = {(answer.status, answer.shape) for answer in answers if not answer.known}
    assert known == unknown, f"only of addresses with an account, or only of those without: {known ^ unknown}"
    assert len({status for status, _ in known}) == len(known), f"one status, several answers: {known}"


def kept_by(server: ScriptedServer) -> list[tuple[str, str]]:
    """Return address and Message-ID of every mail that the server kept, in order."""
    letters = [message_from_bytes(mail.content, policy=policy.default) for mail in list(server.mails) if mail.kept]
    return [(str(letter["To"]), str(letter["Message-ID"])) for letter in letters]


def assert_accounted_for(answers: Iterable[Answer], server: ScriptedServer, tables: Tables) -> dict[str, int]:
    """Every accepted request was mailed, merged, expired or refused, reckoned for each account, and nothing waits.

    Returns:
        How many ended which way.
    """
    assert not tables.waiting()
    accepted = Counter(answer.address for answer in answers if answer.status == 302 and answer.known)
    mailed = Counter(address for address, _ in set(kept_by(server)))
    assert mailed.keys() <= accepted.keys(), f"mailed, and never asked for: {mailed.keys() - accepted.keys()}"
    counted = tables.count_events()
    for address, number in accepted.items():
        ends = {"mailed": mailed[address], **{kind: counted.get((address, kind), 0) for kind in ENDS}}
        assert sum(ends.values()) == number, f"{address} was asked for {number} times: {ends}"
    totals = {kind: sum(number for (_, name), number in counted.items() if name == kind) for kind in ENDS}
    assert len(tables.dead()) == totals["refused"]
    return {"mailed": mailed.total(), **totals}


def assert_counted(ends: Mapping[str, int], unknown: int, tables: Tables) -> None:
    """The application's own counters, which /metrics shows, tell the same.

    Args:
        ends: how many requests ended which way.
        unknown: how many were accepted for addresses without an account.
        tables: with the counters.
    """
    names = {"mailed": "delivered", "refused": "failed"}
    expected = {names.get(end, end): number for end, number in {**ends, "unaddressed": unknown}.items()}
    counted = tables.counted()
    assert {name: counted.get(name, 0) for name in expected} == expected


def assert_copies(server: ScriptedServer, allowed: int) -> int:
    """The server kept one copy of each mail, and no more second ones than are allowed; returns how many it has."""
    kept = kept_by(server)
    more = len(kept) - len(set(kept))
    assert more <= allowed, f"{more} second copies: {Counter(kept).most_common(more)}"
    return more


def tokens_in(server: ScriptedServer) -> set[str]:
    """Return the signatures of all links that the server saw, also in mails that it refused or that were cut."""
    texts = []
    for content in [*server.received, *server.fragments]:
        letter = message_from_bytes(content)
        parts = [part.get_payload(decode=True) for part in letter.walk() if not part.is_multipart()]
        texts += [part.decode("utf-8", "replace") for part in parts if isinstance(part, bytes)]
    return {token for text in texts for token in TOKEN.findall(text)}


def assert_no_token(server: ScriptedServer, processes: Iterable[Server]) -> None:
    """No process printed a link, whole or its signature alone."""
    tokens = tokens_in(server)
    assert tokens or not server.mails, "no link found in the mails: the test is blind"
    for process in processes:
        leaked = [token for token in tokens if token in process.log()]
        assert not leaked, f"{process} printed {leaked}"
