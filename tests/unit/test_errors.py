"""Every public exception travels between processes whole."""

import concurrent.futures
import copy
import multiprocessing
import pickle
import threading

import pytest

from multihost import errors
from multihost.errors import MultihostError


def tree(root: type[MultihostError] = MultihostError) -> list[type[MultihostError]]:
    below = [kind for child in root.__subclasses__() for kind in tree(child)]
    return list(dict.fromkeys([root, *below]))


OWN = [kind for kind in tree() if kind.__module__ == errors.__name__]


def example(kind: type[MultihostError]) -> MultihostError:
    """An error with a different value in each field."""
    if kind in (errors.ServerNotFound, errors.ConnectionLost):
        return kind("http://host:7077", "refused")
    return kind("what, which, what next", *(f"value of {name}" for name in kind.fields))


def state(error: MultihostError) -> dict[str, object]:
    return {"str": str(error), "args": error.args, **vars(error)}


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_keeps_type_fields_and_message(kind, protocol):
    error = example(kind)
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is kind
    assert state(again) == state(error)


@pytest.mark.parametrize("kind", OWN)
def test_copying_keeps_type_fields_and_message(kind):
    error = example(kind)
    assert state(copy.copy(error)) == state(error)


@pytest.mark.parametrize("kind", OWN)
def test_each_field_is_an_attribute_and_none_when_not_given(kind):
    filled, bare = example(kind), kind()
    for name in kind.fields:
        assert getattr(filled, name) == f"value of {name}"
        assert getattr(bare, name) is None


@pytest.mark.parametrize("kind", OWN)
def test_the_message_is_what_str_gives(kind):
    error = example(kind)
    assert str(error) == error.message != ""


@pytest.mark.parametrize("kind", OWN)
def test_more_values_than_fields_are_a_mistake_that_shows(kind):
    with pytest.raises((TypeError, ValueError)):
        kind("message", *range(len(kind.fields) + 2))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (errors.AuthenticationError, multiprocessing.AuthenticationError),
        (errors.ServerNotFound, ConnectionRefusedError),
        (errors.ConnectionLost, ConnectionError),
        (errors.TaskCrashed, concurrent.futures.BrokenExecutor),
        (errors.MissingModule, ImportError),
        (errors.PayloadError, pickle.PicklingError),
        (errors.PayloadError, TypeError),
        (errors.QueueFull, errors.Refused),
        (errors.StoreLocked, errors.StoreError),
        (errors.TaskLost, errors.TaskError),
    ],
)
def test_programs_written_for_the_standard_library_catch_it(ours, theirs):
    with pytest.raises(theirs):
        raise example(ours)


def test_the_time_out_is_that_of_multiprocessing():
    assert errors.TimeoutError is multiprocessing.TimeoutError


def test_a_server_that_is_not_there_is_named_with_the_remedy():
    error = errors.ServerNotFound("http://host:7077", "connection refused")
    assert "http://host:7077" in str(error)
    assert "multihost server" in str(error)
    assert error.url == "http://host:7077"


def test_every_exception_of_the_module_is_in_the_tree():
    public = {
        thing
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, Exception) and name[0] != "_"
    }
    borrowed = {
        errors.TimeoutError,
        concurrent.futures.BrokenExecutor,
        pickle.PicklingError,
        threading.BrokenBarrierError,
    }
    assert public - borrowed == set(OWN)
