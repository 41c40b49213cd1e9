"""A server that stops: who has called is answered, who calls in that very moment is refused."""

import asyncio
import contextlib
import socket
from types import SimpleNamespace

import uvicorn

from utgrec.serving import stopping


async def app(scope, receive, send):
    """Answers nothing; nobody asks."""


def test_at_most_one_caller_is_cut_between_the_last_look_and_the_end(monkeypatch):
    """However long the system leaves the process waiting in between."""
    callers = [socket.socket() for _ in range(8)]
    connected = []

    def look(timeout):
        """Nobody waits, but now they come."""
        for caller in callers:
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect(address)
        for caller in callers:
            with contextlib.suppress(OSError):
                connected.append(caller.getpeername())
        return []

    poll = SimpleNamespace(register=lambda *_: None, poll=look)
    monkeypatch.setattr(stopping, "select", SimpleNamespace(poll=lambda: poll, POLLIN=1))

    async def main():
        config = uvicorn.Config(app, log_config=None, lifespan="off")
        config.load()
        server = stopping.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])
        await server.shutdown([listener])

    with contextlib.ExitStack() as stack:
        for caller in callers:
            stack.enter_context(caller)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = listener.getsockname()
        asyncio.run(main())
    assert len(connected) <= 1
