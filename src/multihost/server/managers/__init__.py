"""Queues for clients of the standard library: the wire protocol of ``multiprocessing.managers``."""
