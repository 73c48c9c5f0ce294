"""What tasks print while there is no connection."""

import pytest

from multihost.wire import message as m
from multihost.worker.options import UNSENT_OUTPUT_BYTES
from multihost.worker.outputbox import LOST_NOTICE, OutputBox


class Line:
    """A connection that is there or not."""

    def __init__(self):
        self.is_connected = True
        self.sent = []

    def send(self, message):
        self.sent.append(message)


@pytest.fixture
def line():
    return Line()


def output(data):
    return m.Output(1 << 32, 1, m.Stream.STDOUT, data)


def test_output_is_sent_at_once_while_there_is_a_connection(line):
    box = OutputBox(line)
    box.add(output(b"now"))
    assert [message.data for message in line.sent] == [b"now"]


def test_output_is_kept_without_a_connection_and_sent_once_there_is_one(line):
    box = OutputBox(line)
    line.is_connected = False
    box.add(output(b"a"))
    box.add(output(b"b"))
    assert line.sent == []
    line.is_connected = True
    box.send_again()
    box.send_again()
    assert [message.data for message in line.sent] == [b"a", b"b"]


def test_what_is_too_much_to_keep_is_lost_and_that_is_said(line):
    box = OutputBox(line)
    line.is_connected = False
    for _ in range(4):
        box.add(output(bytes(UNSENT_OUTPUT_BYTES // 2)))
    line.is_connected = True
    box.send_again()
    assert len(line.sent) == 2
    assert line.sent[-1].data.endswith(LOST_NOTICE)
