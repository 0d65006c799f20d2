"""How fast visitors come: as fast as the site holds while the slow answers stay bearable.

Decides the rate. Visits arrive by chance at a mean rate, whether or not earlier ones are done (an open loop), and the
rate follows the 95th percentile: quickly in the first minute, which looks for it, then slowly.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from benchmarks.visits import Books

BOUND, AIM = 0.050, 0.030  # seconds at the 95th percentile; the machine has moods, so the aim is lower
FIRST_RATE = 4.0  # visits a second
SEARCH, LOOK, HOLD = 60.0, 3.0, 10.0  # seconds: the search, and how often its rate and the later one are set


def percentile(values: list[float], share: float) -> float:
    """Return the value that a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Pace:
    """The rate, and the visits that are under way.

    Args:
        visit: starts one that is due at a moment of the loop's clock.
        books: where it shows how long requests took.
        seed: of chance.
    """

    def __init__(self, visit: Callable[[float], Awaitable[None]], books: Books, seed: int) -> None:
        self._visit, self._books, self._chance = visit, books, random.Random(seed)
        self.rate = FIRST_RATE
        self._under_way: set[asyncio.Future[None]] = set()

    async def keep(self, seconds: float) -> None:
        """Send visitors for so long; the first minute looks for the rate."""
        steering = asyncio.ensure_future(self._steer())
        loop = asyncio.get_running_loop()
        due, end = loop.time(), loop.time() + seconds
        while due < end:
            await asyncio.sleep(max(0.0, due - loop.time()))
            visit = asyncio.ensure_future(self._visit(due))
            self._under_way.add(visit)
            visit.add_done_callback(self._under_way.discard)
            due += self._chance.expovariate(self.rate)
        steering.cancel()
        with suppress(asyncio.CancelledError):
            await steering

    async def let_all_finish(self) -> None:
        """Wait for the visits under way."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _steer(self) -> None:
        start = asyncio.get_running_loop().time()
        seen = 0
        while True:
            searching = asyncio.get_running_loop().time() - start < SEARCH
            await asyncio.sleep(LOOK if searching else HOLD)
            lately = [seconds for _, _, seconds in self._books.seconds[seen:]]
            seen += len(lately)
            if lately:
                self.rate *= _change(percentile(lately, 0.95), searching=searching)


def _change(slow: float, *, searching: bool) -> float:
    """Return what the rate is multiplied by, given the latest 95th percentile."""
    change = float((AIM / slow) ** (0.5 if searching else 0.3))
    lowest, highest = (0.7, 1.4) if searching else (0.85, 1.03)
    return min(max(change, lowest), highest)
