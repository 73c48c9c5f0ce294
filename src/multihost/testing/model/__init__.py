"""A store of plain dicts that obeys the contract of ``store.base`` by brute force.

It is the specification in executable form: it scans where a real store keeps
indices and counters, computes where they remember, and copies everything to
roll back. Real stores are compared with it, verb by verb; whoever doubts what
a verb should do reads it here.
"""

from multihost.testing.model.ground import ModelDisk
from multihost.testing.model.keeping import Keeping
from multihost.testing.model.runs import Runs
from multihost.testing.model.submits import Submits
from multihost.testing.model.taking import Taking


class ModelStore(Submits, Runs, Keeping, Taking):
    """The contract, by brute force; see ``multihost.store.base.Store`` for the verbs."""


__all__ = ["ModelDisk", "ModelStore"]
