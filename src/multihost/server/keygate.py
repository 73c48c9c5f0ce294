"""The managers' port and the server's keys: an authkey may be one of them.

An authkey need not be a key of the server, and roles say nothing about one that
is not. One that is has to be live, of a role that may use queues, and takes its
connections with it when it ends.
"""

from multihost.runtime import clock
from multihost.server.admission import Arrival
from multihost.server.audit import Audit
from multihost.server.keyring import Keyring, why_ended, why_not
from multihost.wire.keys import OWN_KEY, SUBMITTERS, parse_key


class KeyGate:
    """Asked about each connection whose client knows an authkey, told of each that does not."""

    def __init__(self, keyring: Keyring, audit: Audit) -> None:
        """Ask ``keyring``, tell ``audit``."""
        self._keyring = keyring
        self._audit = audit

    def why_not(self, authkey: bytes, arrival: Arrival) -> str:
        """Why who has shown ``authkey`` may not come in; empty: may."""
        key = self._keyring.who_sent(authkey)
        text = ""
        if key is None:
            if parse_key(authkey).id != OWN_KEY:
                text = "this authkey was a key of the server, which does not have it any more"
        elif not key.is_live(clock.wall()):
            text = why_ended(key)
        elif key.role not in SUBMITTERS:
            text = why_not(key, SUBMITTERS, "using queues")
        else:
            arrival.key = key.id
        if text:
            self._audit.refused(arrival.address, key, "a managers' connection with this key")
        return text

    def refused(self, arrival: Arrival) -> None:
        """Somebody knew no authkey."""
        self._audit.refused(arrival.address, None, "a managers' handshake that proved no authkey")
