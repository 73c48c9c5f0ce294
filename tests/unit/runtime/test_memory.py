"""What the processes of ours do about their memory; tried in one of its own."""

import subprocess
import sys

CYCLES = """
import gc, weakref
from multihost.runtime.memory import NEW_OBJECTS, look_less_for_cycles

look_less_for_cycles()
assert gc.get_freeze_count() > 1_000

class Node:
    pass

alive = weakref.WeakSet()
most = 0
for _ in range(10 * NEW_OBJECTS):
    node = Node()
    node.itself = node
    alive.add(node)
    del node
    most = max(most, len(alive))
print(most < 3 * NEW_OBJECTS)
"""


def test_garbage_in_cycles_that_comes_later_is_still_found():
    answer = subprocess.run(
        [sys.executable, "-c", CYCLES], check=False, capture_output=True, text=True
    )
    assert answer.stdout == "True\n", answer.stderr
