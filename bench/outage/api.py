#!/usr/bin/python3
"""An API that breaks on request, for script/outage.

    api.py MODE_FILE LOG

Any POST gets a token.  MODE_FILE names the mode, one of those in MODES; it is
read again a hundred times a second.  Each line of LOG has a time in seconds
since 1970, a comma, and what happened: "request", the status of an answer, or
"mode" and the mode's name.

The sandbox has more faults, but they are part of the URL: it cannot break
while all requests go to one URL, and it cannot stop listening.
"""

import asyncio
import contextlib
import random
import re
import signal
import sys
import time

LATENCY = 0.05
ANSWER = '{"token":"%s","refresh_token":"%s"}' % (
    "eyJhbGciOiJkaXIiLCJ0eXAiOiJTQVQifQ.." + "x" * 600, "y" * 600)
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Limit:
    """A token bucket of RATE a second; it starts full."""

    RATE = 50

    def __init__(self, burst):
        self.burst = self.level = burst
        self.looked_at = time.monotonic()

    def __call__(self):
        now = time.monotonic()
        self.level = min(self.burst, self.level
                         + (now - self.looked_at) * self.RATE)
        self.looked_at = now
        if self.level < 1:
            return 429, 0, "Retry-After: 1\r\n"
        self.level -= 1
        return 201, LATENCY


def always(*outcome):
    return lambda: lambda: outcome


def half_hanging():
    return lambda: random.choice([(201, LATENCY), ()])


# Each is called as the mode begins, and makes the function that says, for each
# request, status, delay and headers, or nothing for no answer.
MODES = {
    "healthy": always(201, LATENCY),
    "black-hole": always(),
    "hot-row": always(),
    "503-retry-after": always(503, 0, "Retry-After: 5\r\n"),
    "503": always(503, 0),
    "slow": always(201, 5),
    "half-hanging": half_hanging,
    "429-burst-50": lambda: Limit(50),
    "429-burst-2": lambda: Limit(2),
    "refused": always(),            # nobody listens
}


class Api:
    def __init__(self, mode_file, log):
        self.mode_file = mode_file
        self.log = log
        self.mode = None
        self.outcome = None
        self.port = 0
        self.listener = None
        self.connections = set()

    def note(self, what):
        self.log.write(f"{time.time():.6f},{what}\n")

    async def listen(self):
        self.listener = await asyncio.get_running_loop().create_server(
            lambda: Connection(self), "127.0.0.1", self.port, backlog=1024)
        self.port = self.listener.sockets[0].getsockname()[1]

    async def follow(self):
        """Follows the mode in the file, for ever."""
        while True:
            with open(self.mode_file, encoding="ascii") as file:
                mode = file.read().strip()
            if mode != self.mode and mode in MODES:
                self.mode = mode
                self.outcome = MODES[mode]()
                if mode == "refused":
                    self.listener.close()
                    for connection in self.connections:
                        connection.transport.abort()
                elif not self.listener.is_serving():
                    await self.listen()
                self.note("mode " + mode)
            await asyncio.sleep(0.01)


class Connection(asyncio.Protocol):
    def __init__(self, api):
        self.api = api
        self.received = b""

    def connection_made(self, transport):
        self.transport = transport
        self.api.connections.add(self)

    def connection_lost(self, _):
        self.api.connections.discard(self)

    def data_received(self, data):
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not end or (length and len(body) < int(length.group(1))):
            return
        self.received = b""
        self.api.note("request")
        outcome = self.api.outcome()
        if outcome:
            status, delay, *headers = outcome
            asyncio.get_running_loop().call_later(
                delay, self.answer, status, "".join(headers))

    def answer(self, status, headers):
        if not self.transport.is_closing():
            body = ANSWER if status == 201 else "{}"
            self.transport.write(
                f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n{headers}\r\n{body}".encode())
            self.api.note(status)


async def main(mode_file, log_file):
    # Appends, because the script empties the file between its runs.
    with open(log_file, "a", buffering=1, encoding="ascii") as log:
        api = Api(mode_file, log)
        await api.listen()
        print(f"listening on http://127.0.0.1:{api.port}", flush=True)
        task = asyncio.current_task()
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await api.follow()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
