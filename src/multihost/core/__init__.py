"""What is true: states, leases, retries, limits.

Pure: nothing here does I/O, starts a thread, reads a clock, draws a random
number or awaits. Time and chance are handed in, so that every decision can be
tested without a fixture and replayed from a seed.
"""
