"""The demo's measures are right, and its proof fails when anything is amiss."""

import pytest

from multihost.demo import inputs
from multihost.demo.measure import Measures, measure
from multihost.demo.proof import prove
from multihost.demo.story import Story

SOURCE = '''\
"""A module."""
# a comment

class Thing:
    """A thing."""

    def method(self):
        if self:
            for _ in self:
                pass  # deep


async def function(): return "# no comment"
'''


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.py"
    path.write_text(SOURCE)
    return str(path)


def test_a_file_is_measured(source):
    assert measure(source) == Measures(
        source,
        lines=13,
        comments=2,
        functions=2,
        classes=1,
        documented=1,
        nesting=4,
        longest_function=4,
    )


def test_a_long_chain_is_measured_however_deep_its_tree_is(tmp_path):
    (tmp_path / "deep.py").write_text("x" + ".a" * 600 + "\n")
    assert measure(str(tmp_path / "deep.py")).is_python


@pytest.mark.parametrize("text", ["def f(:", "\0", "# coding: nonsense\n", "x = '''"])
def test_what_is_no_python_is_said_to_be_none(tmp_path, text):
    (tmp_path / "odd.py").write_text(text)
    assert not measure(str(tmp_path / "odd.py")).is_python


def test_each_content_is_found_once_and_many_are_thinned_evenly(tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.py").write_text(f"{number}")
        (tmp_path / f"{number}-copy.py").write_text(f"{number}")
    assert len(inputs.find(tmp_path, 100)) == 10
    assert len(inputs.find(tmp_path, 4)) == 4
    assert inputs.find(tmp_path, 4) == inputs.find(tmp_path, 4)
    assert inputs.find(tmp_path / "none", 4) == []


def story(source, **changes):
    """A story of one file in which all went well, but for ``changes``."""
    job = {"tasks": 1, "succeeded": 1}
    facts = {"inputs": [source], "results": [measure(source)], "job": job, **changes}
    return Story(**facts)


def test_the_proof_holds_when_all_witnesses_agree(source):
    assert prove(story(source)).holds


def test_the_proof_fails_when_an_outcome_is_doubled(source):
    proof = prove(story(source, results=[measure(source)] * 2))
    assert (proof.holds, proof.duplicates) == (False, 1)


def test_the_proof_fails_when_an_input_is_missing(source):
    proof = prove(story(source, inputs=[source, "other"]))
    assert (proof.holds, proof.missing) == (False, 1)


def test_the_proof_fails_when_the_server_counts_otherwise(source):
    assert not prove(story(source, job={"tasks": 2, "succeeded": 1})).holds
    assert not prove(story(source, job={"tasks": 2, "succeeded": 2})).holds


def test_the_proof_fails_when_a_result_is_wrong(source):
    proof = prove(story(source, results=[Measures(source)]))
    assert (proof.holds, proof.wrong) == (False, 1)
