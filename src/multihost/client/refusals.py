"""What the server's refusal of a call means to users: the exceptions they know.

Each is also what the standard library raises in the case, so that programs
written for it catch what they expect.
"""

from multihost import errors
from multihost.wire.act import Exchanged, RejectCode, Rejected

_KINDS: dict[RejectCode, type[errors.MultihostError]] = {
    RejectCode.NOT_FOUND: errors.Gone,
    RejectCode.NOT_HELD: errors.NotHeld,
    RejectCode.TOO_MANY: errors.TooMany,
    RejectCode.BROKEN: errors.BarrierBroken,
    RejectCode.CONFLICT: errors.KeyConflict,
    RejectCode.BAD_REQUEST: errors.BadRequest,
    RejectCode.STORE_FULL: errors.StoreFull,
    RejectCode.ROLE: errors.NotAllowed,
}


def error_of(result: Rejected | Exchanged) -> errors.MultihostError:
    """The exception for an act that was not done, or an exchange with a closed queue."""
    if isinstance(result, Rejected):
        return _KINDS[result.code](result.message)
    return errors.QueueClosed("the queue was closed, or dropped; it takes and gives nothing more")
