"""What happens to links: cut, one way or both, lossy (``nftables``), or long (a proxy)."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys

import pytest

CHAINS = {"in": "input", "out": "output"}


def need_nft():
    """Have ``nft``, installed if that is allowed, or skip."""
    if shutil.which("nft") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update", "-qq"], ["install", "-y", "-qq", "nftables"]):
            subprocess.run(["apt-get", *command], check=False, capture_output=True, timeout=120)
    if shutil.which("nft") is None:
        pytest.skip("cutting links needs nftables and root")


class Link:
    """The link of one host of a ``Network``."""

    def __init__(self, network, host):
        self._run = lambda *command: network.run(host, *command)
        for way, hook in CHAINS.items():
            self._nft("add table inet links")
            self._nft(f"add chain inet links {way} {{ type filter hook {hook} priority 0; }}")

    @contextlib.contextmanager
    def cut(self, *ways):
        """Nothing comes ``"in"``, goes ``"out"``, or both; nobody is told."""
        with self._rule('iifname "eth0" drop', 'oifname "eth0" drop', ways or CHAINS):
            yield

    @contextlib.contextmanager
    def losing(self, percent):
        """So many of a hundred packets are lost, each way."""
        lost = f"numgen random mod 100 < {percent} drop"
        with self._rule(f'iifname "eth0" {lost}', f'oifname "eth0" {lost}', CHAINS):
            yield

    @contextlib.contextmanager
    def _rule(self, rule_in, rule_out, ways):
        for way, rule in (("in", rule_in), ("out", rule_out)):
            if way in ways:
                self._nft(f"add rule inet links {way} {rule}")
        try:
            yield
        finally:
            for way in ways:
                self._nft(f"flush chain inet links {way}")

    def _nft(self, text):
        code, output, errors = self._run("nft", text)
        assert code == 0, output + errors


@contextlib.contextmanager
def working(network, join):
    """Two workers of two slots that have joined."""
    workers = []
    for host in ("one", "two"):
        worker = network.start_multihost(
            *(host, "worker", "--slots", "2", "--join", "-"), stdin=-1, stderr=-1
        )
        worker.stdin.write(join.text() + "\n")
        worker.stdin.close()
        assert "is connected to" in worker.stderr.readline()
        workers.append(worker)
    yield
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.stderr.read()
        assert worker.wait(60) == 0
        worker.stderr.close()


class Proxy:
    """A long way to a server's port: what is said is heard ``delay_s`` later, each way."""

    def __init__(self, network, host, port, delay_s):
        address = network.address(host)
        self.url = f"https://{address}:{port + 1}"
        self._process = network.start(
            *(host, sys.executable, __file__, address, port + 1, port, delay_s), stdout=-1
        )

    def __enter__(self):
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


async def _carry(reader, writer, delay_s):
    """Bytes from one end to the other, each so much later, as many at once as come."""
    loop = asyncio.get_running_loop()
    while data := await reader.read(1 << 18):
        loop.call_later(delay_s, writer.write, data)
    loop.call_later(delay_s, writer.close)


async def _proxy(listen, port, target, delay_s):
    async def accept(reader, writer):
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(
                _carry(reader, far_writer, delay_s), _carry(far_reader, writer, delay_s)
            )

    server = await asyncio.start_server(accept, listen, port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    address, own_port, target_port, delay_text = sys.argv[1:]
    asyncio.run(_proxy(address, int(own_port), int(target_port), float(delay_text)))
