"""What a caller hands in by mistake is refused at once, and nobody waits for its answer."""

import gc
import sys
from datetime import timedelta
from fractions import Fraction

import pytest
from fake_server import KEY

from multihost import Barrier, Executor, Pool, Process, Queue, Semaphore
from multihost.client.arguments import number, text, texts, whole
from multihost.client.options import first_spec, with_options


class NumPysKind:
    """As NumPy's integers are: no int, and good for one."""

    def __index__(self):
        return 3


def test_whatever_is_good_for_an_index_is_a_whole_number():
    assert whole("processes", 2) == 2
    assert type(whole("processes", NumPysKind())) is int


def test_a_number_of_slots_that_was_divided_is_told_how_to_divide(server):
    wanted = r"^processes is 2\.0; it has to be a whole number; write // for a division$"
    with pytest.raises(TypeError, match=wanted):
        Pool(4 / 2, url=server.url, authkey=KEY)
    with pytest.raises(TypeError, match=r"^max_workers is 2\.0; it has"):
        Executor(4 / 2, url=server.url, authkey=KEY)


def test_a_number_that_no_message_can_carry_is_refused():
    with pytest.raises(OverflowError, match=r"priority is 1180591620717411303424, and can be"):
        whole("priority", 2**70)


def test_a_number_is_not_its_text_nor_a_span_of_time():
    assert number("delay_s", Fraction(1, 4)) == 0.25
    with pytest.raises(TypeError, match=r"^delay_s is '3'; it has to be a number of seconds$"):
        number("delay_s", "3")
    with pytest.raises(TypeError, match=r"a number of seconds$"):
        number("delay_s", timedelta(1))


def test_one_string_is_not_several():
    assert texts("tags", ["gpu", "big"]) == ("gpu", "big")
    for wrong in ("gpu", ["gpu", 3], 3):
        with pytest.raises(TypeError, match=r"^tags is .* several strings, such as"):
            texts("tags", wrong)
    with pytest.raises(TypeError, match=r"^name is 5; it has to be a string$"):
        text("name", 5)


@pytest.mark.parametrize(
    "option",
    [
        {"priority": "high"},
        {"priority": 1.5},
        {"timeout_s": "3"},
        {"retention_s": "7d"},
        {"max_attempts": "2"},
        {"tags": "gpu"},
        {"host": 3},
        {"queue": 3},
        {"queue": None},
        {"label": 5},
        {"unique_key": 5},
    ],
    ids=repr,
)
def test_an_option_of_the_wrong_kind_is_named(option):
    (name,) = option
    with pytest.raises(TypeError, match=f"^{name} is "):
        with_options(first_spec((), output=False), option)


def test_options_that_may_be_none_can_be_taken_back():
    spec = with_options(first_spec((), output=False), {"timeout_s": 3, "host": "here"})
    spec = with_options(spec, {"timeout_s": None, "host": None})
    assert (spec.timeout_s, spec.requires.host) == (None, None)


def test_a_process_is_asked_for_places_that_there_can_be():
    for wrong in ({"tags": "gpu"}, {"host": 3}, {"queue": 3}, {"requires": {"cpus": "two"}}):
        with pytest.raises(TypeError, match=r"it has to be"):
            Process(target=print, **wrong)


def test_a_name_is_a_string(client, pool):
    with pytest.raises(TypeError, match=r"^name is 5"):
        client.map(abs, [1], name=5)
    with pytest.raises(TypeError, match=r"^name is 5"):
        client.queue(5)


def test_queues_semaphores_and_barriers_are_not_of_half_a_size(client):
    for make in (Queue, Semaphore, Barrier):
        with pytest.raises(TypeError, match=r" is 2\.5; it has to be a whole number"):
            make(2.5, client=client)


def test_a_pool_whose_arguments_do_not_fit_ends_without_a_word(monkeypatch):
    """Its finalizer had met an object without a state, and the traceback went to stderr."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with pytest.raises(TypeError, match=r"maxtaskperchild"):
        Pool(2, maxtaskperchild=1)
    gc.collect()
    assert told == []
