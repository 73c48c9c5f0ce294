"""Machines of a test: network namespaces at one switch, whose traffic can be recorded.

Each host has an address of its own and the file system of this machine. What
crosses the switch is seen by ``Recording``, whoever sent it.
"""

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

WAIT_S = 60.0
RECORD = """
import os, socket, sys
end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
end.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
print("ready", flush=True)
while True:
    data = end.recv(1 << 17)
    os.write(file, len(data).to_bytes(4, "big") + data)
"""
SAY = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(sys.argv[2].encode(), (sys.argv[1], 9))
"""


class Network:
    """Hosts with addresses 10.213.78.N; a context manager that leaves nothing behind."""

    def __init__(self, directory, *hosts):
        if os.geteuid() != 0 or shutil.which("ip") is None:
            pytest.skip("network namespaces need root and iproute2")
        self.directory = Path(directory)
        self.hosts = hosts
        self._switch = f"mh{os.getpid()}s"
        self._processes = []
        self._recordings = 0

    def __enter__(self):
        try:
            self._ip("netns", "add", self._switch)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(WAIT_S)
        for name in (*map(self._name, self.hosts), self._switch):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def address(self, host):
        return f"10.213.78.{self.hosts.index(host) + 1}"

    def start(self, host, *command, environment=None, **options):
        """Start a program on ``host``; it is killed at the end, if it still runs."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._name(host), *map(str, command)],
            env=self._environment(host, environment),
            text=True,
            **{"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **options},
        )
        self._processes.append(process)
        return process

    def run(self, host, *command, environment=None, **options):
        """Run a program on ``host`` to its end: exit code, stdout and stderr."""
        with self.start(
            host,
            *command,
            environment=environment,
            stdout=subprocess.PIPE,
            **{"stderr": subprocess.PIPE, **options},
        ) as process:
            output, errors = process.communicate(timeout=WAIT_S)
        return process.returncode, output, errors

    def multihost(self, host, *arguments, **options):
        """Run the command line on ``host``."""
        return self.run(host, sys.executable, "-m", "multihost", *arguments, **options)

    def start_multihost(self, host, *arguments, **options):
        """Start the command line on ``host``."""
        return self.start(host, sys.executable, "-m", "multihost", *arguments, **options)

    @contextlib.contextmanager
    def recording(self):
        """All that crosses the switch within the block."""
        self._recordings += 1
        path = self.directory / f"recording-{self._recordings}"
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._switch, sys.executable, "-c", RECORD, str(path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        assert process.stdout.readline() == "ready\n"
        yield Recording(self, path)
        process.kill()
        process.stdout.close()

    # within

    def _build(self):
        self._in(self._switch, "link", "add", "switch", "type", "bridge")
        self._in(self._switch, "link", "set", "switch", "up")
        for number, host in enumerate(self.hosts):
            name, port = self._name(host), f"port{number}"
            self._ip("netns", "add", name)
            self._in(
                *(self._switch, "link", "add", port, "type", "veth"),
                *("peer", "name", "eth0", "netns", name),
            )
            self._in(self._switch, "link", "set", port, "master", "switch", "up")
            self._in(name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            self._in(name, "link", "set", "eth0", "up")
            self._in(name, "link", "set", "lo", "up")

    def _environment(self, host, more):
        """Of a machine that knows no server."""
        state = self.directory / f"state-{host}"
        mine = {
            "MULTIHOST_STATE": str(state),
            "MULTIHOST_CONFIG": str(state / "config.toml"),
            "MULTIHOST_SEAL": "",  # what a join string brings
        }
        return {**os.environ, **mine, **(more or {})}

    def _name(self, host):
        return f"mh{os.getpid()}{self.hosts.index(host)}"

    def _in(self, name, *arguments):
        self._ip("-n", name, *arguments)

    def _ip(self, *arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Recording:
    """Frames that crossed the switch, in the order seen."""

    def __init__(self, network, path):
        self._network = network
        self._path = path
        self._marks = 0

    def so_far(self):
        """All frames, after it is certain that what was sent before has been recorded."""
        self._marks += 1
        mark, (first, second, *_) = f"mark {self._marks} of the test", self._network.hosts
        self._network.run(first, sys.executable, "-c", SAY, self._network.address(second), mark)
        deadline = time.monotonic() + WAIT_S
        while mark.encode() not in (data := self._path.read_bytes()):
            assert time.monotonic() < deadline, "the recording does not show what was sent"
            time.sleep(0.02)
        return list(_frames(data))

    def streams(self, port):
        """What was said on each TCP connection with this port, by its ends, without gaps."""
        parts = {}
        for frame in self.so_far():
            segment = _segment(frame)
            if segment is not None and port in (segment[0][1], segment[0][3]):
                ends, number, data = segment
                known = parts.setdefault(ends, {})
                known[number] = max(known.get(number, b""), data, key=len)
        joined = {ends: _joined(segments) for ends, segments in parts.items()}
        return {ends: stream for ends, stream in joined.items() if stream}


def _frames(data):
    at = 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 4 + size]
        at += 4 + size


def _segment(frame):
    """Ends (source, port, destination, port), sequence number and payload of a TCP segment."""
    if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_TCP:
        return None
    packet = frame[14 : 14 + int.from_bytes(frame[16:18], "big")]
    start = (packet[0] & 15) * 4
    source, destination, number = struct.unpack_from("!HHI", packet, start)
    data = packet[start + (packet[start + 12] >> 4) * 4 :]
    if packet[start + 13] & 2:  # SYN takes a number
        number += 1
    ends = (socket.inet_ntoa(packet[12:16]), source, socket.inet_ntoa(packet[16:20]), destination)
    return ends, number, data


def _joined(segments):
    stream, first = b"", min(segments)
    for number in sorted(segments):
        at, data = number - first, segments[number]
        if not data:
            continue  # an acknowledgement, after the end perhaps, which takes a number, too
        assert at <= len(stream), "the recording has a gap"
        stream += data[len(stream) - at :]
    return stream


def tell(process, number=signal.SIGTERM):
    """Signal what runs behind ``ip netns exec``, which becomes the program itself."""
    process.send_signal(number)
    return process.wait(WAIT_S)
