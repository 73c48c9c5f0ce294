"""What is written about attempts that went wrong."""

import signal

import pytest

from multihost.core.outcome import Certificate, Ending, Failure, decode_failure, encode_failure
from multihost.worker import reports


def certificate(**fields):
    return Certificate("w-7", "host-3", 4711, run_s=1.25, peak_memory_bytes=34_000_000, **fields)


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (-9, "was killed by SIGKILL"),
        (-11, "was killed by SIGSEGV"),
        (3, "ended by itself with exit code 3"),
        (0, "ended by itself with exit code 0"),
    ],
)
def test_a_death_is_told_by_process_host_cause_time_and_memory(exit_code, words):
    text = reports.describe(certificate(exit_code=exit_code))
    assert text == (f"its process 4711 on host-3 {words} after 1.2 s, with 34 MB of memory at most")


def test_a_signal_without_a_name_is_told_by_its_number():
    number = signal.SIGRTMIN + 3
    assert f"signal {number}" in reports.describe(certificate(exit_code=-number))


def test_want_of_memory_is_told_instead_of_the_signal():
    text = reports.describe(certificate(exit_code=-9, is_out_of_memory=True))
    assert "memory ran out" in text
    assert "SIGKILL" not in text


def test_a_failure_is_signed_and_otherwise_unchanged():
    failure = Failure(Ending.UNRUNNABLE, "KeyError", "'x'", "trace", b"pickle")
    signed = decode_failure(reports.signed(encode_failure(failure), "w-7"))
    assert signed.worker == "w-7"
    assert (signed.ending, signed.message, signed.exception) == (
        *(Ending.UNRUNNABLE, "'x'", b"pickle"),
    )
