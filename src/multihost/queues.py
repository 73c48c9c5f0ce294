"""Queues under the names of ``multiprocessing.queues``; see ``multihost.client.queues``."""

from queue import Empty, Full

from multihost.client.queues import JoinableQueue, Queue, SimpleQueue

__all__ = ["Empty", "Full", "JoinableQueue", "Queue", "SimpleQueue"]
