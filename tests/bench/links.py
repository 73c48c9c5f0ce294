"""Work over bad links, beside the same work over good ones: ``python tests/bench/links.py``.

A server, a client and two workers of two slots, each in a network namespace of
its own, over TLS. Needs root, iproute2 and nftables.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scenario"))

import report
from links import Link, Proxy, working
from networks import Network, tell

from multihost.runtime.join import Join, parse_join

PORT = 7077
LOSS_PERCENT = 10
DELAY_S = 0.1
"""One way: questions are answered after 200 ms."""
PROGRAM = """
import sys, time
import multihost


def millisecond(n):
    time.sleep(0.001)
    return n


def twentieth(n):
    time.sleep(0.05)
    return n


if __name__ == "__main__":
    with multihost.Pool() as pool:
        pool.map(millisecond, range(100))
        for work, count, chunk in ((millisecond, 12_000, None), (twentieth, 240, 1)):
            began = time.perf_counter()
            assert pool.map(work, range(count), chunk) == list(range(count))
            print(count / (time.perf_counter() - began), flush=True)
"""
FIGURES = ("items of 1 ms in default chunks, items/s", "tasks of 50 ms, one by one, tasks/s")


def main() -> None:
    """Measure and print the table."""
    with tempfile.TemporaryDirectory() as directory:
        rates = measure(Path(directory))
    header = ["link", *(text for figure in FIGURES for text in (figure, "of a good link's"))]
    good = rates["good"]
    rows = [
        [
            link,
            *(
                text
                for own, best in zip(found, good, strict=True)
                for text in (f"{own:,.0f}", f"{own / best:.2f}")
            ),
        ]
        for link, found in rates.items()
    ]
    print(report.markdown([header, *rows]))


def measure(directory: Path) -> dict[str, list[float]]:
    """Rates by kind of link, in the order of ``FIGURES``."""
    with Network(directory, "server", "client", "one", "two") as network:
        (directory / "program.py").write_text(PROGRAM)
        server = network.start_multihost(
            *("server", "server", "--host", "0.0.0.0", "--port", PORT, "--json"), stdout=-1
        )
        json.loads(server.stdout.readline())
        join = parse_join(network.multihost("server", "key", "join")[1])
        link = Link(network, "server")
        rates = {}
        with working(network, join):
            rates["good"] = run(network, join)
            with link.losing(LOSS_PERCENT):
                rates[f"loses {LOSS_PERCENT} % of packets each way"] = run(network, join)
        with Proxy(network, "server", PORT, DELAY_S) as proxy:
            far = Join((proxy.url,), join.fingerprint, join.key, join.seal)
            with working(network, far):
                rates[f"{2 * DELAY_S * 1e3:.0f} ms there and back"] = run(network, far)
        tell(server)
    return rates


def run(network, join):
    """Rates of the program's pieces of work."""
    code, output, errors = network.run(
        *("client", sys.executable, network.directory / "program.py"),
        environment={"MULTIHOST_JOIN": join.text()},
    )
    assert code == 0, errors
    return [float(line) for line in output.split()]


if __name__ == "__main__":
    main()
