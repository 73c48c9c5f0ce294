"""Which handler serves a message, by the role of the key that its connection came in with.

The tables are made once, when the server's modules are loaded: whether a
message may be sent costs nothing when it comes. What may not is answered as
its sender expects, and nothing is done.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from multihost.wire import message as m
from multihost.wire.act import RejectCode, Rejected
from multihost.wire.keys import KeyRole
from multihost.wire.session import MAY_SEND

P = TypeVar("P")
Handler = Callable[[P, Any], None]
Table = dict[type, Handler[P]]


def by_role(handlers: Mapping[type, Handler[P]], refuse: Handler[P]) -> dict[KeyRole, Table[P]]:
    """``handlers`` for each role, with ``refuse`` in place of what the role may not send."""
    return {
        role: {
            kind: handler if role in MAY_SEND[kind] else refuse
            for kind, handler in handlers.items()
        }
        for role in KeyRole
    }


def refusal_of(message: m.Message, text: str) -> m.Message:
    """The answer to a message that its key may not send."""
    if isinstance(message, m.Open):
        return m.OpenRefused(message.job, m.RefusalCode.ROLE, text)
    if isinstance(message, m.Add):
        count = len(message.payloads)
        return m.AddRefused(message.job, message.first, count, m.RefusalCode.ROLE, text)
    if isinstance(message, m.Call):
        return m.Answer(message.taker, message.number, Rejected(RejectCode.ROLE, text))
    if isinstance(message, m.FindBlob | m.PutBlob | m.GetBlob):
        return m.BlobRefused(message.digest, text, m.RefusalCode.ROLE)
    return m.Forbidden(text)
