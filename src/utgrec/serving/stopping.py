"""A server that answers what has been accepted for it before it stops.

The operating system accepts connections on its own, and gives them to the server when that asks. At
the moment when it stops listening, those not yet asked for would be cut, and so would those whose
request is still on its way.
"""

import asyncio
import select
import socket
from typing import Any

import uvicorn

ARRIVES_S = 1.0  # longest wait for the first request of a new connection


class Server(uvicorn.Server):
    """uvicorn's server with a gentler end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take in who has called already, stop listening, then answer and end."""
        waiting = select.poll()
        for server in self.servers:
            for listener in server.sockets:
                waiting.register(listener, select.POLLIN)
                # The system takes calls until the socket is closed, and cuts those it still has:
                # let it take no more than one at a time.
                with listener.dup() as same:
                    same.listen(0)
        while waiting.poll(0):
            await asyncio.sleep(0)  # the event loop takes them in
        for server in self.servers:
            server.close()
        until = asyncio.get_running_loop().time() + ARRIVES_S
        while self._is_new() and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)

    def _is_new(self) -> bool:
        """Whether a connection has not brought its first request yet."""
        connections: set[Any] = set(self.server_state.connections)
        return any(getattr(one, "cycle", self) is None for one in connections)
