import threading

from multihost.client import dispatcher as module
from multihost.client.dispatcher import Dispatcher
from multihost.testing import wait_until


def test_who_joins_while_another_thread_stops_it_goes_on(monkeypatch):
    dispatcher, ran = Dispatcher("under test"), threading.Event()
    dispatcher.put(ran.set)
    assert ran.wait(20)
    stopping = threading.Thread(target=dispatcher.stop)

    def stop_in_between():
        monkeypatch.undo()
        stopping.start()
        wait_until(lambda: dispatcher._lock.locked() or not stopping.is_alive())
        return threading.main_thread()

    joining = threading.Thread(target=dispatcher.join, daemon=True)
    monkeypatch.setattr(module.threading, "current_thread", stop_in_between)
    joining.start()
    joining.join(20)
    assert not joining.is_alive()
    stopping.join(20)


def test_what_is_put_while_it_is_stopped_still_runs():
    dispatcher, ran = Dispatcher("under test"), threading.Event()
    dispatcher.put(lambda: None)
    before = dispatcher._queue

    class PutsInBetween:
        """The queue of a dispatcher, at which somebody is quick when its end is put."""

        get = before.get

        @staticmethod
        def put(call):
            before.put(call)
            if call is None:
                threading.Thread(target=dispatcher.put, args=(ran.set,)).start()
                wait_until(lambda: not before.empty() or ran.is_set())

    dispatcher._queue = PutsInBetween()
    dispatcher.stop()
    assert ran.wait(20)
    dispatcher.stop()
