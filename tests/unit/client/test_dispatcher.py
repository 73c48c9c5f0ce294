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
