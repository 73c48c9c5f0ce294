"""A manager's client hangs up once, however it is forgotten."""

import gc
import os
import socket
import sys
from multiprocessing.connection import Connection

from multihost.managers.wires import Wire


def test_a_wire_in_a_cycle_closes_nothing_that_was_closed_before_it(monkeypatch):
    """The collector ends what is in a cycle in any order; the number could be another's already."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    here, there = socket.socketpair()
    with here, there:
        wire = Wire(Connection(os.dup(here.fileno())), socket.socket(fileno=os.dup(here.fileno())))
        here.close()
        wire.itself = wire
        del wire
        gc.collect()
        assert there.recv(1) == b""
    assert [each for each in told if issubclass(each.exc_type, OSError)] == []
