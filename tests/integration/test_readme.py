"""The programs of the README run as they stand there."""

import re
from pathlib import Path

import pytest
from programs import run

HERE = Path(__file__).parents[2]
READMES = ("README.md", "README.zh-CN.md")


def programs(name):
    """The blocks that are whole programs: those with a main guard."""
    blocks = re.findall(r"```python\n(.*?)```", (HERE / name).read_text(), re.DOTALL)
    return [block for block in blocks if "__main__" in block]


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("name", READMES)
def test_the_programs_of_the_readme_run(tmp_path, name, number):
    out, _ = run(tmp_path, programs(name)[number])
    assert out.strip() == [str([n * n for n in range(10)]), "[(1, 1), (2, 4), (3, 9)]"][number]


def test_both_readmes_have_the_same_blocks_and_sections():
    english, chinese = ((HERE / name).read_text() for name in READMES)
    assert english.count("\n## ") == chinese.count("\n## ")
    assert english.count("```") == chinese.count("```")
