"""A TCP line that is as long as one to a mail provider: what goes in comes out half a round trip later.

Decides only how long bytes are on their way; it reads nothing. Loopback has no distance, and how often a client waits
for an answer is what a connection to a real server costs. `python -m benchmarks.distance PORT SECONDS` runs until its
input ends; SECONDS is the round trip.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HOST = "127.0.0.1"


@contextmanager
def distance(port: int, round_trip: float) -> Iterator[int]:
    """Put a line before a port, and give the port where it begins."""
    command = [sys.executable, "-m", "benchmarks.distance", str(port), str(round_trip)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield int(process.stdout.readline())
        process.communicate()


class _Line:
    def __init__(self, port: int, round_trip: float) -> None:
        self._port, self._round_trip = port, round_trip
        self._tasks: set[asyncio.Task[None]] = set()

    async def admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The kernel took the connection at once: SYN, its answer and the way of what confirms it are waited for here.
        await asyncio.sleep(self._round_trip * 1.5)
        there = await asyncio.open_connection(HOST, self._port)
        await asyncio.gather(self._carry(reader, there[1]), self._carry(there[0], writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop, under_way = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()
        task = loop.create_task(self._deliver(under_way, writer))
        with suppress(OSError):
            while data := await reader.read(65536):
                under_way.put_nowait((loop.time() + self._round_trip / 2, data))
        under_way.put_nowait((loop.time() + self._round_trip / 2, b""))
        await task

    async def _deliver(self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            if not data:
                break
            writer.write(data)
        writer.close()


async def _serve(port: int, round_trip: float) -> None:
    server = await asyncio.start_server(_Line(port, round_trip).admit, HOST, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)  # whoever still talks is gone by now, and asyncio would make a noise about it


def main() -> None:
    """Serve until the input ends."""
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))


if __name__ == "__main__":
    main()
