"""What becomes of a task after an attempt: done, again (when?), or failed for good.

Three limits are counted apart, since they say different things: ``errors``
(the code raised or timed out), ``crashes`` (its process died under it) and
``losses`` (the worker vanished with it). A lease that was given back counts
as none of them.
"""

from typing import NamedTuple

from multihost.core.state import Event


class Faults(NamedTuple):
    """How often attempts of a task have gone wrong so far, by cause."""

    errors: int = 0
    crashes: int = 0
    losses: int = 0


class Limits(NamedTuple):
    """How often each may happen before the task fails."""

    max_attempts: int = 1
    """Runs of the code that may end in an error or a timeout."""
    max_crashes: int = 3
    max_losses: int = 10


class Backoff(NamedTuple):
    """Wait before the next attempt: ``first_s * factor ** (n - 1)``, at most ``max_s``.

    ``jitter`` 0.25 spreads it over ±25 %, so that tasks that failed together
    don't come back together.
    """

    first_s: float = 1.0
    factor: float = 2.0
    max_s: float = 600.0
    jitter: float = 0.25

    def delay_s(self, failures: int, chance: float) -> float:
        """Seconds to wait after the ``failures``-th failure; ``chance`` is in [0, 1)."""
        if failures < 1 or self.first_s <= 0:
            return 0.0
        # A float overflows past 2**1023: the exponent is bounded, max_s decides anyway.
        base = min(self.max_s, self.first_s * self.factor ** min(failures - 1, 64))
        return base * (1 + self.jitter * (2 * chance - 1))


class Verdict(NamedTuple):
    """What to do with a task whose attempt went wrong."""

    event: Event
    faults: Faults
    delay_s: float
    """Seconds before it may run again; 0 when it failed or may run at once."""


def after_error(faults: Faults, limits: Limits, backoff: Backoff, chance: float) -> Verdict:
    """Verdict when the code raised or ran into its timeout."""
    faults = faults._replace(errors=faults.errors + 1)
    if faults.errors >= limits.max_attempts:
        return Verdict(Event.FAILED, faults, 0.0)
    return Verdict(Event.ERRED, faults, backoff.delay_s(faults.errors, chance))


def after_crash(faults: Faults, limits: Limits) -> Verdict:
    """Verdict when the process that ran the task died."""
    faults = faults._replace(crashes=faults.crashes + 1)
    is_poison = faults.crashes >= limits.max_crashes
    return Verdict(Event.FAILED if is_poison else Event.CRASHED, faults, 0.0)


def after_loss(faults: Faults, limits: Limits) -> Verdict:
    """Verdict when the worker that held the lease vanished."""
    faults = faults._replace(losses=faults.losses + 1)
    is_poison = faults.losses >= limits.max_losses
    return Verdict(Event.FAILED if is_poison else Event.LOST, faults, 0.0)
