"""The post of the visitors: what came at the mail server, who waits for a link, and how long mail was on its way.

Decides that mails are told apart by Message-ID, and asks the sink for news while the run lasts.
"""

import asyncio
from collections import Counter

from benchmarks.sink import Mail, Sink

LOOKS_EVERY = 0.25  # seconds
PATIENCE = 120.0  # seconds: an account is mailed once a minute


class Post:
    """All mail of the run.

    Args:
        sink: where it comes in.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.copies: Counter[str] = Counter()  # by Message-ID
        self.recipients: set[str] = set()
        self.delays: list[float] = []
        self._asked: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._links: dict[str, str] = {}

    def expect(self, address: str) -> None:
        """Note that mail for an address was accepted just now."""
        self._asked[address] = asyncio.get_running_loop().time()

    async def link_for(self, address: str) -> str:
        """Return the link that is mailed to an address, when it has come.

        Raises:
            TimeoutError: where none comes within PATIENCE.
        """
        if address in self._links:
            return self._links[address]
        future = self._waiting[address] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(PATIENCE):
            return await future

    async def collect(self) -> None:
        """Ask for news, again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOKS_EVERY)

    async def look(self) -> None:
        """Ask for news once."""
        for mail in await asyncio.to_thread(self._sink.news):
            self._take(mail)

    def _take(self, mail: Mail) -> None:
        self.copies[mail.message_id] += 1
        self.recipients.add(mail.recipient)
        asked = self._asked.pop(mail.recipient, None)
        if asked is not None:
            self.delays.append(mail.at - asked)
        if mail.link is None:
            return
        waiting = self._waiting.pop(mail.recipient, None)
        if waiting is None:
            self._links[mail.recipient] = mail.link
        elif not waiting.done():
            waiting.set_result(mail.link)
