"""What of ``__main__`` travels for processes that meet it by name."""

import pickle
import sys
import types
import zlib

import pytest

from multihost import mainspace
from multihost.client import definitions

SOURCE = """
import threading
LARGE, LOCK = bytes(1_000_000), threading.Lock()
def small(): return 1
def large(): return LARGE
def locked(): return LOCK
class Kind: pass
"""


@pytest.fixture
def main(monkeypatch):
    main = types.ModuleType("__main__")
    exec(SOURCE, vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    return main


def test_classes_and_functions_travel_but_for_what_is_large_or_cant_be_pickled(main):
    packed = definitions.of_main()
    assert sorted(pickle.loads(zlib.decompress(packed))) == ["Kind", "small"]
    assert definitions.of_main() is packed
    assert b"__main__" not in packed
    main.also = type("also", (), {"__module__": "__main__"})
    assert "also" in pickle.loads(zlib.decompress(definitions.of_main()))


def test_a_class_that_pickles_what_asks_for_definitions_ends(main):
    asked = []

    class Asks:
        def __reduce__(self):
            asked.append(definitions.of_main())
            return str, ()

    main.Kind.attribute = Asks()
    assert definitions.of_main() != b""
    assert asked == [b""]


def test_a_child_finds_what_it_learnt_and_forgets_it_with_the_next_program(main, monkeypatch):
    packed = definitions.of_main()
    child = types.ModuleType("__main__")
    child.__spec__ = types.SimpleNamespace(name="multihost.worker.__main__")
    monkeypatch.setitem(sys.modules, "__main__", child)
    mainspace.stand_in()
    mainspace.learn(packed)
    assert child.small() == 1
    assert child.Kind is child.Kind
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = child.nothing
    mainspace.learn(b"")
    with pytest.raises(AttributeError):
        _ = child.small


def test_a_program_learns_nothing_about_itself(main):
    mainspace.learn(definitions.of_main())
    assert mainspace._definitions == {}
