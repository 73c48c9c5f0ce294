"""The proof: each input was answered exactly once, and rightly.

Four witnesses have to agree: the inputs, what the client received, the
server's counters, and a sequential recount of a random sample. The workers'
own ledger says how many runs that took.
"""

import random
from collections import Counter
from typing import NamedTuple

from multihost.demo.measure import measure
from multihost.demo.story import Story

SAMPLE = 50


class Proof(NamedTuple):
    """The figures; ``holds`` is the verdict."""

    inputs: int
    outcomes: int
    duplicates: int
    missing: int
    unexpected: int
    """Outcomes for what was no input."""
    stored: int
    """Tasks that the server's counters have as succeeded."""
    unfinished: int
    """Tasks that the server's counters have in any other state."""
    runs: int
    """Runs that were started, by the workers' ledger."""
    lost: int
    """Attempts lost with their worker, by the server's book."""
    recounted: int
    wrong: int
    """Of the recounted: measured otherwise."""

    @property
    def holds(self) -> bool:
        """Whether all witnesses agree."""
        faults = (self.duplicates, self.missing, self.unexpected, self.unfinished, self.wrong)
        return self.inputs == self.outcomes == self.stored and not any(faults)


def prove(story: Story) -> Proof:
    """Count everything again."""
    answers = Counter(result.path for result in story.results)
    wanted = set(story.inputs)
    job = story.job
    sample = random.sample(story.results, min(SAMPLE, len(story.results)))
    return Proof(
        inputs=len(story.inputs),
        outcomes=len(story.results),
        duplicates=sum(count - 1 for count in answers.values()),
        missing=len(wanted - answers.keys()),
        unexpected=len(answers.keys() - wanted),
        stored=job["succeeded"],
        unfinished=job["tasks"] - job["succeeded"],
        runs=story.runs,
        lost=story.lost,
        recounted=len(sample),
        wrong=sum(measure(result.path) != result for result in sample),
    )
