"""Claims about a server whose own services break."""

import asyncio

from multihost.server.app import Server, ServerOptions
from multihost.server.reaper import Reaper


def test_a_server_whose_reaper_ends_stops_and_says_why(tmp_path, monkeypatch):
    async def breaks(_):
        raise KeyError("a session that nobody knows")

    monkeypatch.setattr(Reaper, "run", breaks)

    async def main():
        server = Server(ServerOptions(state=tmp_path, port=0, announces=False))
        await server.start()
        await asyncio.wait_for(server.wait(), 20)
        await server.stop()
        return server.failure

    assert "a session that nobody knows" in str(asyncio.run(main()))
