"""What an earlier run left under a name, and whether this run asks for the same.

The server sends the outcomes it has at once; but each counts only when the
server has compared this run's input with the one it keeps, so that results of
other inputs are never mixed in.
"""

from collections.abc import Iterable

from multihost.client.outcomes import refusal
from multihost.core.job import JobSpec
from multihost.errors import InputChanged, KeyConflict, MultihostError
from multihost.wire import message as m


class EarlierRun:
    """Outcomes and inputs of a lasting job, while they are being compared.

    Invariant: an outcome is handed out once, after the input at its index was
    acknowledged, or never.
    """

    def __init__(self, spec: JobSpec) -> None:
        """Begin without knowing whether there was one."""
        self._spec = spec
        self.count = 0
        """Tasks that the job already held when it was opened."""
        self._known = 0
        """Inputs of this run that were submitted."""
        self._uncompared: set[int] = set()
        self._early: dict[int, m.Outcome] = {}

    def submitted(self, indices: range) -> None:
        """This run submits inputs at ``indices``."""
        self._known = indices.stop
        self._uncompared.update(indices)

    def sift(self, outcomes: Iterable[m.Outcome]) -> list[m.Outcome]:
        """Outcomes that may be handed out; the others are held until their inputs are compared."""
        ready = []
        for outcome in outcomes:
            if outcome.index >= self._known or outcome.index in self._uncompared:
                self._early[outcome.index] = outcome
            else:
                ready.append(outcome)
        return ready

    def compared(self, indices: range) -> list[m.Outcome]:
        """These inputs are the ones kept: the outcomes that were held for them."""
        self._uncompared.difference_update(indices)
        return [self._early.pop(index) for index in indices if index in self._early]

    def refusal(self, code: m.RefusalCode, text: str, indices: tuple[int, ...]) -> MultihostError:
        """The error for inputs that are not the ones kept, in words that say which."""
        if code is not m.RefusalCode.INPUT_CHANGED:
            return refusal(code, text, indices)
        if self._spec.name is None:
            return KeyConflict(
                f"the unique key {self._spec.unique_key!r} is in use for another call; "
                f"use another key for this one ({text})"
            )
        if not indices:
            what = "its function differs from what"
        elif 0 < self.count <= indices[0]:
            what = f"this run has more inputs than the {self.count} that"
        else:
            also = f" (and {len(indices) - 1} more)" if len(indices) > 1 else ""
            what = f"input {indices[0]}{also} differs from what"
        return InputChanged(
            f"job {self._spec.name!r}: {what} an earlier run submitted under this name; "
            f"use another name to start afresh ({text})",
            indices,
        )
