"""Classes of managers go to other processes without what ties them to their program."""

import pickle
import queue

import cloudpickle
import pytest

from multihost import managers


def travelled(**registered):
    """A manager's class that was defined in a program, as another process has it."""

    class Manager(managers.BaseManager):
        pass

    for name, function in registered.items():
        Manager.register(name, function)
    return pickle.loads(cloudpickle.dumps(Manager))


def test_what_cannot_be_pickled_stays_behind_and_says_so():
    tasks = queue.Queue()
    (makes, *_) = travelled(tasks=lambda: tasks)._registry["tasks"]
    with pytest.raises(NotImplementedError, match="what makes 'tasks' could not be pickled"):
        makes()


def test_what_can_be_pickled_comes_along():
    there = travelled(numbers=lambda: [1, 2], known=None, squares=dict)
    assert there._registry["numbers"][0]() == [1, 2]
    assert there._registry["known"][0] is None
    assert there._registry["squares"][0] is dict


def test_a_function_that_uses_the_managers_class_itself_comes_along():
    class Manager(managers.BaseManager):
        pass

    def names():
        return sorted(Manager._registry)

    Manager.register("names", names)
    there = pickle.loads(cloudpickle.dumps(Manager))
    assert there._registry["names"][0]() == ["names"]


def test_classes_do_not_share_what_they_register():
    class First(managers.BaseManager):
        pass

    class Second(First):
        pass

    Second.register("tasks")
    assert "tasks" not in First._registry
    assert "tasks" in Second._registry
