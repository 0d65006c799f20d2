"""Ten thousand waiting rows are sent oldest first, and those that are too old are counted."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import func, select

from tests.support.accounting import kept_by
from tests.support.clock import until
from tests.support.fault_site import FaultSite, OpenSite
from tests.support.scripted_smtp import ScriptedServer
from tests.support.servers import OutboxRun
from tests.support.tables import outbox

ROWS, KNOWN, OLD = 10_000, 1_000, 300
PATIENCE = 600.0  # seconds: far more than a quiet machine needs; the row tells the rate


def rows_of(addresses: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows as requests write them, the first OLD of them too long ago; the ids are in another order."""
    now, chance = datetime.now(UTC), Random(7)  # noqa: S311 (no secret)
    old = [now - timedelta(hours=25, seconds=number) for number in range(OLD)]
    young = [now - timedelta(hours=23, seconds=-7 * number) for number in range(len(addresses) - OLD)]
    chance.shuffle(young)
    pairs = list(zip(addresses, old + young, strict=True))
    chance.shuffle(pairs)
    return [
        {"kind": "password_reset", "address": address, "email_key": address, "created_at": at, "run_after": at}
        for address, at in pairs
    ]


def reckon_with(site: FaultSite, addresses: Sequence[str], *, known: bool) -> None:
    """Count rows that were put into the table as requests that were accepted."""
    like = next(answer for answer in site.people.answers if answer.known == known)
    site.people.answers += [replace(like, address=address, known=known) for address in addresses]


def wait_for_the_end(site: FaultSite) -> None:
    """Wait until nothing is due, asking seldom, since each look counts all rows."""

    def is_done() -> bool:
        time.sleep(0.5)
        return site.tables.run(select(func.count()).select_from(outbox))[0][0] == 0

    until(is_done, "the end of the backlog", PATIENCE)


@pytest.mark.timeout(700)
def test_a_backlog_of_ten_thousand_goes_out_oldest_first_within_the_age_limit(
    open_site: OpenSite, mail: ScriptedServer
) -> None:
    site = open_site(mail, OUTBOX_WORKER="none")
    known = [f"backlog-{number:04}@example.com" for number in range(KNOWN)]
    unknown = [f"nobody-{number:04}@example.com" for number in range(ROWS - KNOWN)]
    site.tables.add_accounts(known)
    rows = rows_of(known + unknown)
    for half in (rows[: ROWS // 2], rows[ROWS // 2 :]):  # a statement takes 65,535 values
        site.tables.run(outbox.insert().values(half))
    last = site.people.request_resets(2)
    reckon_with(site, known, known=True)
    reckon_with(site, unknown, known=False)
    began = time.monotonic()
    site.start(OutboxRun)
    site.repaired()
    wait_for_the_end(site)
    rate = ROWS / (time.monotonic() - began)
    site.settle()
    of_accounts = [
        row for row in sorted(rows, key=lambda row: row["run_after"]) if row["address"].startswith("backlog")
    ]
    assert [address for address, _ in kept_by(mail)] == [row["address"] for row in of_accounts[OLD:]] + last
    done = f"{ROWS:,} rows put into the table, {KNOWN:,} for accounts, {OLD} of those older than 24 h; one worker"
    site.check("backlog", done, f"mailed strictly oldest first, the old ones expired; {rate:.0f} rows a second")
