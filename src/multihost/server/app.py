"""Composes the server: store, committer, hub, gateway, HTTP; starts and stops them.

One port carries everything. HTTP is uvicorn's (``site``); a WebSocket on ``/ws`` leaves
uvicorn right after its request line and is a ``runtime.link`` from then on. The socket of
the server's own machine carries WebSockets only. What a server may never need, as HTTP in
a program's embedded one, is imported when it does.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from multihost.core.lease import GRACE_S, HEARTBEAT_S, LEASE_S, LeaseTable
from multihost.errors import ConfigError
from multihost.runtime import config
from multihost.runtime.address import DEFAULT_PORT, is_loopback, is_wildcard, url_of
from multihost.runtime.descriptors import allow_descriptors
from multihost.runtime.note import (
    ServerNote,
    birth_of,
    remove_server_note,
    write_server_note,
)
from multihost.runtime.secret import make_key
from multihost.runtime.spinning import only_spin_while
from multihost.server.acceptor import Acceptor
from multihost.server.admission import (
    MAX_CONNECTIONS,
    RESERVED_DESCRIPTORS,
    UNPROVED,
    Admission,
    Arrival,
)
from multihost.server.audit import Audit
from multihost.server.backups import Backups
from multihost.server.blobs import BlobStore
from multihost.server.branches import open_branch
from multihost.server.calls import Calls
from multihost.server.clients import ClientPeer
from multihost.server.committer import Committer
from multihost.server.gateway import Desk, Gateway
from multihost.server.hub import Hub
from multihost.server.keyring import Keyring
from multihost.server.listening import listen, listen_nearby, remove_nearby
from multihost.server.managers.options import DoorError, ManagersOptions
from multihost.server.reaper import Promoter, Pruner, Reaper
from multihost.server.services import (
    CLIENT_GRACE_S,
    CLIENT_SILENCE_S,
    RESTART_GRACE_S,
    TAKER_GRACE_S,
    Services,
)
from multihost.server.subscription import Watchers
from multihost.server.views import Views
from multihost.server.workers import WorkerPeer
from multihost.store.base import Changes, SessionInfo
from multihost.store.places import BLOB_DIRECTORY, STORE_FILE
from multihost.store.sqlite.store import open_store
from multihost.wire.message import MAX_BLOB_BYTES, Role

if TYPE_CHECKING:
    from multihost.server.managers.door import Door
    from multihost.server.site import Site

DURABILITIES = ("power", "process")
DRAIN_S = 5.0
"""Time for what was taken to be committed when the server stops."""


@dataclass(slots=True)
class ServerOptions:
    """What a server is started with."""

    state: Path = field(default_factory=config.state_dir)
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """0 takes a free one."""
    durability: str = "power"
    """``power``: acknowledged work survives a power cut; ``process``: kill -9 of the server."""
    is_insecure: bool = False
    """Listen on other addresses than loopback without TLS."""
    is_tls: bool = False
    """Speak TLS on loopback, too."""
    tls_cert: Path | None = None
    """A certificate (PEM, with its chain) instead of the one that the server makes itself."""
    tls_key: Path | None = None
    """Its private key; None: in the same file."""
    addresses: tuple[str, ...] = ()
    """Under which other machines reach it, for join strings; empty: all of this machine's."""
    key: bytes | None = field(default=None, repr=False)
    """None: the one in the state directory, made if there is none."""
    announces: bool = True
    """Whether this user's clients on this machine find the server by itself."""
    heartbeat_s: float = HEARTBEAT_S
    lease_s: float = LEASE_S
    grace_s: float = GRACE_S
    client_silence_s: float = CLIENT_SILENCE_S
    client_grace_s: float = CLIENT_GRACE_S
    taker_grace_s: float = TAKER_GRACE_S
    restart_grace_s: float = RESTART_GRACE_S
    store_limit_bytes: int | None = None
    """What the store may hold before submits are refused; None: what the disk does."""
    max_blob_bytes: int = MAX_BLOB_BYTES
    """The largest argument or result that is taken."""
    managers: ManagersOptions | None = None
    """Where clients of the standard library's managers connect; None: nowhere."""

    @property
    def has_tls(self) -> bool:
        """Whether the server speaks TLS: off loopback, unless told otherwise."""
        if self.is_tls or self.tls_cert is not None:
            return True
        return not is_loopback(self.host) and not self.is_insecure


def check_options(options: ServerOptions) -> None:
    """Raise ConfigError for options that would lose work or let strangers in."""
    if options.durability not in DURABILITIES:
        raise ConfigError(f"durability is 'power' or 'process', not {options.durability!r}")
    if options.tls_key is not None and options.tls_cert is None:
        raise ConfigError("--tls-key is the key of a certificate: say --tls-cert, too")
    managers = options.managers
    if managers is not None and not is_loopback(managers.host) and not options.is_insecure:
        raise ConfigError(
            f"{managers.host or 'every address'} can be reached from other machines, and the "
            "managers' protocol has no encryption: bind 127.0.0.1, or say --insecure on a "
            "network you trust"
        )


class Server:
    """A server in this process, on the running event loop."""

    def __init__(self, options: ServerOptions) -> None:
        """Check ``options``; nothing is opened yet."""
        check_options(options)
        self.options = options
        self.url = ""
        self.socket: str | None = None
        """Where this machine reaches it without a network."""
        self.fingerprint: str | None = None
        """Of the certificate, where TLS is spoken."""
        self.key = b""
        self.failure: Exception | None = None
        """Why the server had to stop by itself."""
        self.services: Services
        self.door: Door | None = None
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._acceptors: list[Acceptor] = []
        self._site: Site | None = None

    async def start(self) -> None:
        """Open the store and listen; ``url`` is known afterwards.

        Raises StoreError, ConfigError, or OSError when the address is taken.
        """
        options = self.options
        options.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        listener = listen(options.host, options.port)
        managers = options.managers
        try:
            context = self._tls_context() if options.has_tls else None
            if managers is not None:
                door_listener = managers.listener or _listen_for(managers)
            self.key = options.key or make_key(options.state / config.KEY_FILE)
            self._store = open_store(
                options.state / STORE_FILE,
                lengthens_log=options.durability == "power" or options.announces,
                limit_bytes=options.store_limit_bytes,
            )
        except BaseException:
            listener.close()
            raise
        self.admission = Admission(
            allow_descriptors(MAX_CONNECTIONS + UNPROVED + RESERVED_DESCRIPTORS)
        )
        self._compose()
        if options.announces:
            self._made_site()
        self._accept(listener, context)
        # Only now, when this is the one server of the store: a socket there is a dead one's.
        nearby = listen_nearby(options.state / config.SOCKET_FILE)
        if nearby is not None:
            self._accept_nearby(nearby)
            self.socket = nearby.getsockname()
        host, port = listener.getsockname()[:2]
        self.url = url_of(_reachable(host), port, is_tls=options.has_tls)
        if options.announces:
            self._announce(host, port)
        self._start_services()
        if managers is not None:
            await self._open_door(managers, door_listener)

    async def wait(self) -> None:
        """Return when the server was asked to stop or had to."""
        await self._stopping.wait()

    def request_stop(self) -> None:
        """Make ``wait`` return."""
        self._stopping.set()

    async def stop(self) -> None:
        """Take nothing new, commit what has come, tell the peers, close."""
        self._stopping.set()
        if self.options.announces:
            remove_server_note(self.options.state)
        for task in self._tasks:
            task.cancel()
        self.promoter.stop()
        self.keyring.close()
        await self.backups.stop()
        if self.door is not None:
            await self.door.stop()
        self.gateway.pause()
        await self._drain()
        for acceptor in self._acceptors:
            acceptor.stop()
        if self.socket is not None:
            remove_nearby(self.socket)
        for peer in self.services.worker_peers.values():
            peer.send_settled()  # else it stays with them until there is a server again
        self.gateway.stop("the server is stopping")
        if self._site is not None:
            await self._site.shutdown()
        await self._drain()
        self.services.committer.stop()
        self.services.blobs.files.close()
        self._store.close()

    # within ------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Commit what has come; on a full disk give up after a while, nobody was told of it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.services.committer.drain(), DRAIN_S)

    def _compose(self) -> None:
        options, store = self.options, self._store
        is_durable = options.durability == "power"
        committer = Committer(store, is_durable=is_durable, on_fatal=self._fail)
        watchers = Watchers()
        reaper = Reaper()
        hub = Hub(watchers.started)
        committer.listener = hub
        only_spin_while(hub.has_idle_slot)
        self.services = Services(
            committer,
            hub,
            BlobStore(
                committer,
                options.state / BLOB_DIRECTORY,
                is_durable=is_durable,
                max_bytes=options.max_blob_bytes,
            ),
            Calls(committer),
            watchers,
            reaper.wake,
            leases=LeaseTable(options.lease_s, options.grace_s),
            clients=LeaseTable(options.client_silence_s, options.client_grace_s),
            takers=LeaseTable(options.lease_s, options.taker_grace_s),
            heartbeat_s=options.heartbeat_s,
            lease_s=options.lease_s,
        )
        reaper.services = self.services
        self.reaper = reaper
        self.views = Views(self.services)
        self.promoter = Promoter(committer, watchers)
        self.backups = Backups(committer, store.begin_copy, options.state / BLOB_DIRECTORY)
        self.pruner = Pruner(committer, self.services.blobs, lambda: self.backups.is_running)
        self.views.on_deleted = self.pruner.wake
        hub.on_changes = self._changed
        self.audit = Audit()
        self.keyring = Keyring(self.key, committer, self.admission)
        self.gateway = Gateway(
            self.keyring,
            Desk(
                attach=lambda connection, message: ClientPeer(self.services, connection, message),
                enlist=lambda connection, message: WorkerPeer(self.services, connection, message),
                branch=lambda connection, message: open_branch(self.services, connection, message),
            ),
            self.admission,
            committer,
            self.audit,
        )

    def _changed(self, changes: Changes) -> None:
        watchers = self.services.watchers
        watchers.push(changes.finals)
        for row in changes.ended:
            watchers.ended(row)
            self.views.ended(row)
        self.promoter.look()

    def _start_services(self) -> None:
        services, now = self.services, self.services.now()
        services.paused = self._store.paused_queues()
        # Whoever was there before the restart gets a whole lease to come back, unless it is
        # known to be gone: as after a restart of this very machine.
        for row in self._store.sessions(Role.WORKER):
            if _was_here(row.info):
                services.leases.expect(row.number, now, self.options.restart_grace_s)
            else:
                services.leases.renew(row.number, now)
        for row in self._store.sessions(Role.CLIENT):
            services.clients.expect(row.number, now, self.options.client_grace_s)
            services.takers.expect(row.number, now, self.options.restart_grace_s)
        self.promoter.look()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self.reaper.run()), loop.create_task(self.pruner.run())]
        for task in self._tasks:
            task.add_done_callback(self._service_ended)

    def _tls_context(self) -> ssl.SSLContext:
        from multihost.server import certificate

        options = self.options
        path = options.tls_cert or certificate.keep_certificate(options.state)
        context = certificate.server_context(path, options.tls_key)
        self.fingerprint = certificate.read_fingerprint(path)
        return context

    def _announce(self, host: str, port: int) -> None:
        options = self.options
        note = ServerNote(
            url=url_of(_nearest(host), port, is_tls=options.has_tls),
            pid=os.getpid(),
            fingerprint=self.fingerprint,
            host=host,
            is_own=options.tls_cert is None,
            addresses=options.addresses,
            socket=self.socket,
            born=birth_of(os.getpid()),
        )
        write_server_note(options.state, note)

    def _made_site(self) -> "Site":
        """The HTTP side, made when first needed."""
        if self._site is None:
            from multihost.server.site import Site

            self._site = Site(
                self.views, self.backups, self.keyring, self.audit, self.gateway.protocol
            )
        return self._site

    def _accept(self, listener: socket.socket, context: ssl.SSLContext | None = None) -> None:
        """Serve who connects to ``listener``; ``context``: over TLS."""
        self._start_acceptor(
            listener, lambda arrival, _: self._made_site().connection(arrival), context
        )

    def _accept_nearby(self, listener: socket.socket) -> None:
        """Serve this machine's clients and workers, which ask nothing by HTTP there."""
        self._start_acceptor(listener, lambda arrival, _: self.gateway.protocol(arrival=arrival))

    def _start_acceptor(
        self,
        listener: socket.socket,
        make: Callable[[Arrival, socket.socket], asyncio.Protocol],
        context: ssl.SSLContext | None = None,
    ) -> None:
        acceptor = Acceptor(listener, self.admission, make, context)
        acceptor.start()
        self._acceptors.append(acceptor)

    async def _open_door(self, managers: ManagersOptions, listener: socket.socket) -> None:
        """Serve clients of the standard library's managers."""
        from multihost.server.keygate import KeyGate
        from multihost.server.managers.backing import ServicesBacking
        from multihost.server.managers.door import make_door

        self.door = make_door(
            ServicesBacking(self.services),
            managers,
            self.key,
            self.admission,
            gate=KeyGate(self.keyring, self.audit),
        )
        await self.door.start(listener)

    def _service_ended(self, task: asyncio.Task[None]) -> None:
        """Stop rather than run on without it: nobody else would notice what it should have."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(RuntimeError(f"a service of its own ended: {error!r}"))

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self._stopping.set()


def _listen_for(managers: ManagersOptions) -> socket.socket:
    try:
        return listen(managers.host, managers.port)
    except OSError as error:
        raise DoorError(error.errno, error.strerror) from error


def _reachable(host: str) -> str:
    """Address under which others reach a listener bound to ``host``."""
    return socket.gethostname() if is_wildcard(host) else host


def _nearest(host: str) -> str:
    """Address under which this machine reaches a listener bound to ``host``."""
    if is_wildcard(host):
        return "::1" if ":" in host else "127.0.0.1"
    return host


def _was_here(info: SessionInfo) -> bool:
    """Whether a session's process ran on this machine and does not any more.

    Two containers may share a name and not their processes, so that this is no proof.
    """
    if info.host != socket.gethostname() or not info.pid:
        return False
    try:
        os.kill(info.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
