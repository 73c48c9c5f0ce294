"""Contexts, and the modules of multiprocessing that stay on one machine."""

import copyreg
import importlib
import multiprocessing.connection
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.pool import ThreadPool

import pytest

import multihost
from multihost import context, dummy, pool
from multihost.client import packing
from multihost.errors import PayloadError


@pytest.mark.parametrize("method", ["spawn", "fork", None])
def test_an_executor_of_the_standard_library_works_with_a_context_and_says_where(method):
    context._tell_that_it_stays_here.cache_clear()
    with pytest.warns(UserWarning, match="multihost.Executor") as told:  # noqa: SIM117 - it warns
        with ProcessPoolExecutor(1, mp_context=multihost.get_context(method)) as executor:
            assert executor.submit(pow, 2, 3).result(30) == 8
    assert [warning.filename for warning in told] == [__file__]


def test_pools_of_threads_are_those_of_the_standard_library():
    assert pool.ThreadPool is ThreadPool
    with dummy.Pool(2) as threads:
        assert type(threads) is ThreadPool
        assert threads.map(abs, [-1, 2]) == [1, 2]


def test_values_of_threads_are_there_though_no_star_imports_them():
    assert dummy.Value("i", 3).value == 3
    assert not hasattr(dummy, "Valeu")


@pytest.mark.parametrize("name", ["Spawn", "Fork", "ForkServer"])
def test_contexts_and_their_processes_are_found_by_name(name):
    kind = getattr(context, f"{name}Context")
    assert type(multihost.get_context(name.lower())) is kind
    assert kind().get_start_method() == name.lower()
    assert kind().Process is multihost.Process
    assert getattr(context, f"{name}Process") is context.Process is multihost.Process
    assert isinstance(multihost.get_context(), context.DefaultContext)
    with pytest.raises(AttributeError):
        context.SpawnThread  # noqa: B018


@pytest.mark.parametrize("name", ["AuthenticationError", "ProcessError", "TimeoutError"])
def test_the_exceptions_of_a_context_are_those_of_the_package(name):
    assert issubclass(getattr(context, name), getattr(multihost, name))


@pytest.mark.parametrize("name", sorted(multihost._MODULES))
def test_a_module_of_multiprocessing_is_there_as_an_attribute_and_to_be_imported(name):
    module = importlib.import_module(f"multihost.{name}")
    assert getattr(multihost, name) is module
    assert name in dir(multihost)


@pytest.mark.parametrize("name", ["util", "reduction", "spawn", "resource_tracker"])
def test_what_concerns_this_process_alone_is_the_standard_librarys(name):
    ours = importlib.import_module(f"multihost.{name}")
    theirs = importlib.import_module(f"multiprocessing.{name}")
    own = {"ForkingPickler", "register"} if name == "reduction" else set()
    for each in {*theirs.__all__, *(key for key in dir(theirs) if key[:1] != "_")} - own:
        assert getattr(ours, each) is getattr(theirs, each)
    with pytest.raises(AttributeError, match=f"multihost.{name}"):
        _ = ours.no_such_thing


class Sealed:
    def __reduce__(self):
        raise TypeError("sealed")


def test_what_is_registered_for_pickling_is_pickled_so_on_its_way_to_workers(monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, Sealed, None)  # removed when the test is over
    del copyreg.dispatch_table[Sealed]
    with pytest.raises(PayloadError):
        packing.pack_call((Sealed(),), {})
    multihost.reduction.ForkingPickler.register(Sealed, lambda _: (str, ("opened",)))
    packed = packing.pack_call((Sealed(),), {})
    assert pickle.loads(packed.data) == (("opened",), {})


def test_the_logging_levels_of_multiprocessing_are_there():
    assert multihost.SUBDEBUG == multiprocessing.SUBDEBUG < multihost.SUBWARNING


def test_names_of_connections_that_need_no_server_are_the_standard_librarys():
    assert multihost.connection.Listener is multiprocessing.connection.Listener
    assert multihost.connection.deliver_challenge is multiprocessing.connection.deliver_challenge
    assert not hasattr(multihost.connection, "Conection")
