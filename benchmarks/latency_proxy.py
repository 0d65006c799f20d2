"""A TCP proxy that adds the round trip of a distant SMTP server: every byte arrives half of it later.

Loopback has none, and how often a client waits for a reply is what a connection to a real server costs.
`python -m benchmarks.latency_proxy LISTEN PORT SECONDS` runs until it is terminated.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.processes import HOST, free_port, running, wait_for_port


@contextmanager
def latency_proxy(folder: Path, port: int, round_trip: float) -> Iterator[int]:
    """Run a proxy in front of a port, and return the proxy's own port.

    Args:
        folder: for what it prints.
        port: of the server.
        round_trip: in seconds.
    """
    listen = free_port()
    with running(folder, "-m", "benchmarks.latency_proxy", str(listen), str(port), str(round_trip)):
        wait_for_port(listen)
        yield listen


class _Proxy:
    def __init__(self, port: int, round_trip: float) -> None:
        self._port = port
        self._round_trip = round_trip

    async def admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The kernel accepted the connection at once: the handshake and the greeting's way back are waited for here.
        await asyncio.sleep(self._round_trip * 1.5)
        there = await asyncio.open_connection(HOST, self._port)
        await asyncio.gather(self._copy(reader, there[1]), self._copy(there[0], writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        delayed = asyncio.Queue[tuple[float, bytes]]()
        task = loop.create_task(self._deliver(delayed, writer))
        with suppress(OSError):
            while content := await reader.read(65536):
                delayed.put_nowait((loop.time() + self._round_trip / 2, content))
        delayed.put_nowait((loop.time() + self._round_trip / 2, b""))
        await task

    async def _deliver(self, delayed: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, content = await delayed.get()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            if not content:
                break
            writer.write(content)
        writer.close()


async def _serve(listen: int, port: int, round_trip: float) -> None:
    server = await asyncio.start_server(_Proxy(port, round_trip).admit, HOST, listen)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
