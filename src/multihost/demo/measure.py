"""The user's part of the demo: measure one Python source file.

Plain code that knows nothing of multihost; ``task`` also notes each run, so
that the proof has a witness beside the server.
"""

import ast
import os
import tokenize
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.AsyncFor, ast.AsyncWith, ast.Match)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Measures:
    """What there is to say about a file; ``is_python`` false: it doesn't parse."""

    path: str
    lines: int = 0
    comments: int = 0
    functions: int = 0
    classes: int = 0
    documented: int = 0
    """Functions and classes with a docstring."""
    nesting: int = 0
    """Depth of the deepest statement: functions, classes and blocks around it."""
    longest_function: int = 0
    """Lines of the longest function."""
    is_python: bool = True


def measure(path: str) -> Measures:
    """Measure the file at ``path``."""
    source = Path(path).read_bytes()
    lines = source.count(b"\n")
    try:
        tree = ast.parse(source)
        comments = _comments(source)
    except (SyntaxError, ValueError, RecursionError, tokenize.TokenError):
        return Measures(path, lines, is_python=False)
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return Measures(
        path,
        lines,
        comments,
        len(functions),
        len(classes),
        sum(ast.get_docstring(node, clean=False) is not None for node in [*functions, *classes]),
        _nesting(tree),
        max(((node.end_lineno or 0) - node.lineno + 1 for node in functions), default=0),
    )


def task(path: str, ledger: str) -> tuple[Measures, int]:
    """What a worker runs: measure a file; note the run in ``ledger``, say whose child did it."""
    with (Path(ledger) / f"{os.getpid()}").open("a") as runs:
        runs.write(f"{path}\n")
    return measure(path), os.getppid()


def _comments(source: bytes) -> int:
    tokens = tokenize.tokenize(BytesIO(source).readline)
    return sum(token.type == tokenize.COMMENT for token in tokens)


def _nesting(tree: ast.AST) -> int:
    """Depth of blocks within blocks. Without recursion: there are files of any depth."""
    deepest, waiting = 0, [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        depth += isinstance(node, (*BLOCKS, *FUNCTIONS, ast.ClassDef))
        deepest = max(deepest, depth)
        waiting.extend((child, depth) for child in ast.iter_child_nodes(node))
    return deepest
