"""What ``ship=`` names, and the archives made of it."""

import io
import json
import os
import sys
import types
import zipfile
from pathlib import Path

import pytest

from multihost.client import shipping
from multihost.client.shipping import pack_ship
from multihost.errors import LimitExceeded, ShipError


@pytest.fixture
def package(tmp_path):
    home = tmp_path / "code" / "parcel"
    for name, text in {
        "__init__.py": "from .inner import VALUE\n",
        "inner/__init__.py": "VALUE = 1\n",
        "data/table.csv": "1,2\n",
        "__pycache__/inner.cpython-311.pyc": "bytecode",
        "stray.pyc": "bytecode",
        ".git/config": "[core]\n",
    }.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return home


def names(bulk):
    return zipfile.ZipFile(io.BytesIO(bulk.data)).namelist()


def test_a_package_travels_with_its_data_and_without_bytecode_and_history(package):
    (bulk,) = pack_ship(package)
    assert names(bulk) == [
        "parcel/__init__.py",
        "parcel/data/table.csv",
        "parcel/inner/__init__.py",
    ]


def test_equal_code_makes_equal_archives_wherever_and_whenever_it_lies(package, tmp_path):
    import shutil

    other = tmp_path / "elsewhere" / "parcel"
    shutil.copytree(package, other)
    (other / "__init__.py").touch()
    assert pack_ship(package)[0].blob == pack_ship(other)[0].blob
    (other / "inner" / "__init__.py").write_text("VALUE = 2\n")
    assert pack_ship(package)[0].blob != pack_ship(other)[0].blob


def test_a_name_a_module_and_a_path_mean_the_same_package(package, monkeypatch):
    monkeypatch.syspath_prepend(str(package.parent))
    import parcel

    by_path = pack_ship(package)
    try:
        assert pack_ship("parcel") == pack_ship(parcel) == pack_ship(["parcel.inner"]) == by_path
        assert pack_ship(["parcel", parcel, package]) == by_path
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "parcel"]:
            del sys.modules[name]


def test_a_directory_that_is_no_package_is_a_place_to_import_from(package):
    (bulk,) = pack_ship(package.parent)
    assert "parcel/inner/__init__.py" in names(bulk)


def test_a_single_file_is_a_module(tmp_path):
    file = tmp_path / "lonely.py"
    file.write_text("X = 1\n")
    assert names(pack_ship(str(file))[0]) == ["lonely.py"]


def test_a_link_to_a_directory_above_it_is_not_followed_for_ever(package):
    (package / "inner" / "again").symlink_to(package)
    (bulk,) = pack_ship(package)
    assert "parcel/inner/again/__init__.py" not in names(bulk)


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        (json, "comes with Python"),
        ("multihost", "have their own"),
        (types.ModuleType("__main__"), "travels by itself"),
        ("no_such_module_at_all", "no module of that name"),
        (Path("/no/such/place"), "no such file or directory"),
        (Path(__file__).parent / "no.txt", "no such file"),
    ],
)
def test_what_can_not_be_sent_is_refused_with_the_reason(thing, why):
    with pytest.raises(ShipError, match=why):
        pack_ship(thing)


def test_what_is_too_large_is_refused_with_the_limits_name(package, monkeypatch):
    monkeypatch.setattr(shipping, "SHIP_BYTES", 10)
    with pytest.raises(LimitExceeded, match=r"10 bytes.*SHIP_BYTES.*--path DIR") as caught:
        pack_ship(package)
    assert caught.value.limit == "SHIP_BYTES"


def test_of_a_namespace_package_in_two_places_the_first_file_of_a_name_travels(
    tmp_path, monkeypatch
):
    for place in ("one", "two"):
        (tmp_path / place / "spread").mkdir(parents=True)
        (tmp_path / place / "spread" / "same.py").write_text(f"FROM = {place!r}\n")
        (tmp_path / place / "spread" / f"{place}.py").touch()
        monkeypatch.syspath_prepend(str(tmp_path / place))
    (bulk,) = pack_ship("spread")
    assert names(bulk) == ["spread/one.py", "spread/same.py", "spread/two.py"]
    archive = zipfile.ZipFile(io.BytesIO(bulk.data))
    assert archive.read("spread/same.py") == b"FROM = 'two'\n"


def test_no_more_of_a_tree_is_looked_at_than_may_travel(package, monkeypatch):
    looked_at = []
    monkeypatch.setattr(shipping, "SHIP_FILES", 1)
    monkeypatch.setattr(shipping, "_is_loop", lambda place, _: looked_at.append(place))
    with pytest.raises(LimitExceeded, match="SHIP_FILES"):
        pack_ship(package)
    assert looked_at == [package, package / "data"]


@pytest.mark.parametrize("name", [b"latin-\xe9.txt", b"back\\slash.txt"])
def test_a_file_whose_name_can_not_travel_is_named(package, name):
    try:
        Path(os.fsdecode(os.fsencode(package) + b"/" + name)).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(ShipError, match=r"latin|back"):
        pack_ship(package)
