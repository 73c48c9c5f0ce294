"""For tests of multihost and of what is built on it: clusters, waiting, conformance.

``start`` is what CPython's test harness calls: a server and two workers as
processes of their own.
"""

from multihost.testing.cluster import Cluster, start
from multihost.testing.waiting import wait_until

__all__ = ["Cluster", "start", "wait_until"]
