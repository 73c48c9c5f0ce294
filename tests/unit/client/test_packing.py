import functools
import pickle
import sys
import threading

import cloudpickle
import pytest

from multihost.client import packing
from multihost.core.digest import digest_of
from multihost.errors import PayloadError


class Unfriendly:
    def __reduce__(self):
        raise ZeroDivisionError("not today")


def module_level(x):
    return x


def test_plain_arguments_travel_as_a_plain_pickle():
    data, is_by_value = packing.pack_call((1, "two"), {"three": 3})
    assert pickle.loads(data) == ((1, "two"), {"three": 3})
    assert not is_by_value


def test_an_importable_function_travels_by_reference_and_needs_no_python_version():
    packed = packing.pack_function(functools.reduce)
    assert packed.python is None
    assert pickle.loads(packed.data) is functools.reduce


@pytest.mark.parametrize("function", [lambda x: x + 1, functools.partial(lambda x, y: x + y, 1)])
def test_what_pickle_cannot_carry_travels_by_value_bound_to_this_python(function):
    packed = packing.pack_function(function)
    assert packed.python == packing.PYTHON
    assert pickle.loads(packed.data)(1) == 2


def test_a_function_of_main_travels_by_value(monkeypatch):
    function = cloudpickle.loads(cloudpickle.dumps(lambda: 41 + 1))
    function.__module__, function.__qualname__ = "__main__", "answer"
    monkeypatch.setattr(sys.modules["__main__"], "answer", function, raising=False)
    packed = packing.pack_function(function)
    assert packed.python == packing.PYTHON
    assert packed.label == "answer"
    assert b"answer" in packed.data
    assert pickle.loads(packed.data)() == 42


def test_the_error_names_the_argument_that_cannot_be_pickled():
    with pytest.raises(PayloadError, match=r"argument 1 of sort \(_thread.lock\)") as caught:
        packing.pack_call((1, threading.Lock()), {}, "sort")
    assert caught.value.what == "argument 1 of sort"
    assert isinstance(caught.value, (TypeError, pickle.PicklingError))


def test_the_error_names_a_keyword_argument():
    with pytest.raises(PayloadError, match="argument 'key'"):
        packing.pack_call((), {"key": threading.Lock()})


def test_the_error_names_the_item_by_its_index_in_the_whole_input():
    with pytest.raises(PayloadError, match="item 12 for f"):
        packing.pack_items([1, 2, threading.Lock()], 10, "f")


def test_what_a_users_reduce_raises_stays_what_it_is_and_names_the_argument():
    with pytest.raises(ZeroDivisionError, match="not today") as caught:
        packing.pack_call((Unfriendly(),), {}, "f")
    assert "argument 0 of f" in caught.value.__notes__[0]


def test_the_error_names_the_global_or_the_variable_that_a_function_needs(tmp_path, monkeypatch):
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setitem(globals(), "_log", log)

        def direct():
            return [_log for _ in "x"]  # noqa: F821 - set above

        def around():
            return log

        direct.__module__ = around.__module__ = "__main__"
        for function, name in ((direct, "the global '_log'"), (around, "the variable 'log'")):
            with pytest.raises(PayloadError, match=f"{name} that the function .* can't be pickled"):
                packing.pack_function(function)


def test_a_lock_that_a_function_needs_arrives_as_another_that_is_free():
    lock = threading.Lock()

    def function():
        return lock

    with lock:
        there = pickle.loads(packing.pack_function(function).data)()
    assert type(there) is type(lock)
    assert not there.locked()


def test_a_module_registered_by_value_is_sent_by_value():
    module = sys.modules[__name__]
    assert packing.pack_function(module_level).python is None
    cloudpickle.register_pickle_by_value(module)
    try:
        assert packing.pack_function(module_level).python == packing.PYTHON
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def test_only_functions_whose_pickle_cannot_change_are_reused():
    counter = [0]

    def closure():
        return counter

    assert packing.is_reusable(module_level)
    assert packing.is_reusable(len)
    assert packing.is_reusable(int)
    assert not packing.is_reusable(closure)
    assert not packing.is_reusable(counter.append)
    assert not packing.is_reusable(functools.partial(module_level, 1))


def test_labels_are_what_people_call_a_function():
    assert packing.label_of(len) == "len"
    assert packing.label_of(functools.reduce) == "_functools.reduce"
    assert packing.label_of(functools.partial(len)) == "partial(len)"
    assert packing.label_of(module_level).endswith("module_level")


def test_a_large_payload_becomes_a_blob_under_its_digest():
    small, large = bytes(packing.INLINE_BYTES), bytes(packing.INLINE_BYTES + 1)
    assert packing.as_payload(small) is small
    bulk = packing.as_payload(large)
    assert bulk.blob.digest == digest_of(large)
    assert bulk.blob.size_bytes == len(large)
