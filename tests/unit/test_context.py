"""Contexts, and the modules of multiprocessing that stay on one machine."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing.pool import ThreadPool

import pytest

import multihost
from multihost import context, dummy, pool


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
