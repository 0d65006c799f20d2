"""What must be true after every fault, computed from answers, the emails that the mail server has, and the tables.

It decides what counts as a loss, a second copy and a leak. Functions fail with a sentence and wait for nothing.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage

from tests.support.scripted_smtp import ScriptedServer
from tests.support.servers import Server
from tests.support.tables import Tables
from tests.support.visitors import Answer

SOON = 1.0  # seconds
# The format in `pwreset/logs.py`: six characters of time, a dot, 43 of signature.
TOKEN = re.compile(r"[A-Za-z0-9_-]{6,7}\.([A-Za-z0-9_-]{43})")
LINK = re.compile(r"/password-reset-confirm/\S+")
ENDS = ("merged", "expired", "refused")
RESETS = re.compile(r'^pwreset_(\w+)_total\{kind="password_reset"\} (\S+)$', re.MULTILINE)


class Late(AssertionError):
    """A POST took a second or more. The machine may have been busy with other things, so this alone may be repeated."""


def assert_answered_soon(answers: Iterable[Answer], soon: float) -> None:
    """Assert that every answer took less than `soon` seconds.

    Raises:
        Late: an answer took longer.
    """
    slowest = max(answer.seconds for answer in answers)
    if slowest >= soon:
        msg = f"{1000 * slowest:.0f} ms"
        raise Late(msg)


def assert_answered_alike(answers: Iterable[Answer], statuses: Collection[int]) -> None:
    """Assert that no answer reveals whether an address has an account, and that each status is allowed."""
    odd = [answer for answer in answers if answer.status not in statuses]
    assert not odd, f"not answered with {statuses}: {odd[:3]}"
    known = {(answer.status, answer.shape) for answer in answers if answer.known}
    unknown = {(answer.status, answer.shape) for answer in answers if not answer.known}
    assert known == unknown, f"only of addresses with an account, or only of those without: {known ^ unknown}"
    assert len({status for status, _ in known}) == len(known), f"one status, several answers: {known}"


def kept_by(server: ScriptedServer) -> list[tuple[str, str]]:
    """Return address and Message-ID of every email that the server kept, in order."""
    return [(str(email["To"]), str(email["Message-ID"])) for email, _ in emails_kept_by(server)]


def emails_kept_by(server: ScriptedServer) -> list[tuple[EmailMessage, float]]:
    """Return every email that the server kept, parsed, and when it arrived; the oldest first."""
    kept = [mail for mail in list(server.emails) if mail.kept]
    return [(message_from_bytes(mail.content, policy=policy.default), mail.at) for mail in kept]


def assert_accounted_for(answers: Iterable[Answer], server: ScriptedServer, tables: Tables) -> dict[str, int]:
    """Every accepted request was emailed, merged, expired or failed, counted for each account, and nothing waits.

    Returns:
        How many ended which way.
    """
    assert not tables.waiting()
    accepted = Counter(answer.address for answer in answers if answer.status == 302 and answer.known)
    mailed = Counter(address for address, _ in set(kept_by(server)))
    assert mailed.keys() <= accepted.keys(), f"emailed, but never requested: {mailed.keys() - accepted.keys()}"
    counted = tables.count_events()
    for address, number in accepted.items():
        ends = {"mailed": mailed[address], **{kind: counted.get((address, kind), 0) for kind in ENDS}}
        assert sum(ends.values()) == number, f"{address} was requested {number} times: {ends}"
    totals = {kind: sum(number for (_, name), number in counted.items() if name == kind) for kind in ENDS}
    assert len(tables.dead()) == totals["refused"]
    return {"mailed": mailed.total(), **totals}


def assert_merged_into_email(server: ScriptedServer, tables: Tables) -> None:
    """Every merged request belongs to a later email, or to a later request that expired or failed."""
    latest = {str(email["To"]): at for email, at in emails_kept_by(server)}
    ended = tables.last_events("expired") | tables.last_events("refused")
    for address, merged in tables.last_events("merged").items():
        came = max(latest.get(address, 0.0), ended.get(address, 0.0))
        assert came >= merged, f"{address}: merged, and nothing came after it"


def assert_counted(ends: Mapping[str, int], unknown: int, metrics: str) -> None:
    """Assert that the application's own counters have the same numbers.

    Args:
        ends: the number of requests for each outcome.
        unknown: how many were accepted for addresses without an account.
        metrics: the response of /metrics.
    """
    names = {"mailed": "delivered", "refused": "failed"}
    expected = {f"mails_{names.get(end, end)}": number for end, number in {**ends, "unaddressed": unknown}.items()}
    expected["requests"] = sum(expected.values())
    shown = {name: float(number) for name, number in RESETS.findall(metrics)}
    assert {name: shown.get(name, 0) for name in expected} == expected


def assert_copies(server: ScriptedServer, allowed: int) -> int:
    """Assert that the server has at most `allowed` second copies of emails, and return how many it has."""
    kept = kept_by(server)
    more = len(kept) - len(set(kept))
    assert more <= allowed, f"{more} second copies: {Counter(kept).most_common(more)}"
    return more


def tokens_in(server: ScriptedServer) -> set[str]:
    """Return the signatures of all links that the server received, also in rejected and incomplete emails."""
    texts = []
    for content in [*server.received, *server.fragments]:
        email = message_from_bytes(content)
        parts = [part.get_payload(decode=True) for part in email.walk() if not part.is_multipart()]
        texts += [part.decode("utf-8", "replace") for part in parts if isinstance(part, bytes)]
    return {token for text in texts for token in TOKEN.findall(text)}


def link_in(server: ScriptedServer) -> str | None:
    """Return the path of the link in the newest email that the server has, if it has one."""
    for mail in reversed(list(server.emails)):
        body = message_from_bytes(mail.content, policy=policy.default).get_body(("plain",))
        if body and (found := LINK.search(body.get_content())):
            return found[0]
    return None


def assert_no_token(server: ScriptedServer, processes: Iterable[Server]) -> None:
    """No process printed a link, complete or only its signature."""
    tokens = tokens_in(server)
    assert tokens or not server.emails, "no link found in the emails, so the test checks nothing"
    for process in processes:
        leaked = [token for token in tokens if token in process.log()]
        assert not leaked, f"{process} printed {leaked}"
