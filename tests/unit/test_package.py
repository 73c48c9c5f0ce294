"""What ``import multihost`` costs and offers."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import multihost

ROOT = Path(__file__).parents[2]
INNER = ("core", "wire", "store", "runtime", "server", "worker", "client")
SLOW = ("asyncio", "msgspec", "typing", "multiprocessing", "concurrent.futures", "logging")


def modules_after(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter, without site, has after ``statement``."""
    program = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); {statement}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{program}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", SLOW)
def test_importing_the_package_loads_nothing_slow(module):
    loaded = modules_after("import multihost")
    assert "multihost" in loaded
    assert module not in loaded


def test_a_programs_own_server_loads_no_http_until_somebody_asks_by_it():
    program = "import multihost.embedded, sys; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert {"uvicorn", "starlette", "click"}.isdisjoint(answer.stdout.split())


@pytest.mark.parametrize("name", multihost.__all__)
def test_every_public_name_resolves(name):
    assert getattr(multihost, name) is not None
    assert name in dir(multihost)


def test_the_list_for_type_checkers_is_the_table_that_is_used():
    assert multihost.__all__ == sorted(multihost._HOMES)


def test_the_package_shows_no_name_that_only_type_checkers_want():
    assert "TYPE_CHECKING" not in dir(multihost)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'multihost' has no attribute 'Pol'"):
        _ = multihost.Pol


def test_the_version_is_that_of_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert multihost.__version__ == project["version"]


def public_names_used(tree: ast.AST) -> set[str]:
    """Public names that a module takes from the root package, as import or as attribute."""
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "multihost" and not node.level:
            used |= {alias.name for alias in node.names}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used |= {node.attr} if node.value.id == "multihost" else set()
    return used & {*multihost.__all__, "*"}


@pytest.mark.parametrize("layer", INNER)
def test_no_inner_layer_reaches_the_faces_through_the_root_package(layer):
    modules = sorted((ROOT / "src" / "multihost" / layer).rglob("*.py"))
    assert modules
    used = {str(path): public_names_used(ast.parse(path.read_text())) for path in modules}
    assert {path: names for path, names in used.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    ["from multihost import Pool", "import multihost\nmultihost.Pool()", "from multihost import *"],
)
def test_a_way_around_the_layers_would_be_found(source):
    assert public_names_used(ast.parse(source))
