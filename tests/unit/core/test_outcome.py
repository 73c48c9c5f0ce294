"""Failures, as they are stored and sent."""

import msgspec
import pytest

from multihost.core.outcome import Certificate, Ending, Failure, decode_failure, encode_failure


def test_a_failure_survives_being_stored():
    failure = Failure(
        Ending.CRASHED,
        type_name="builtins.OSError",
        message="gone",
        traceback="Traceback …",
        exception=b"pickle",
        worker="w-1",
        certificates=(Certificate(worker="w-1", pid=7, exit_code=-9, is_out_of_memory=True),),
    )
    assert decode_failure(encode_failure(failure)) == failure


def test_an_older_version_reads_what_a_newer_one_wrote():
    data = msgspec.msgpack.encode({"ending": 1, "message": "m", "from_the_future": [1, 2]})
    assert decode_failure(data) == Failure(Ending.RAISED, message="m")


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"ending": 99})])
def test_what_is_no_failure_is_an_error(data):
    with pytest.raises(msgspec.MsgspecError):
        decode_failure(data)


def test_stored_numbers_of_endings_never_change():
    assert [(ending.name, ending.value) for ending in Ending] == [
        ("OK", 0),
        ("RAISED", 1),
        ("TIMED_OUT", 2),
        ("CRASHED", 3),
        ("LOST", 4),
        ("CANCELLED", 5),
        ("EXPIRED", 6),
        ("UNRUNNABLE", 7),
        ("BLOCKED", 8),
    ]
