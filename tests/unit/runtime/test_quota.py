"""Claims about what a container leaves its processes of the cores."""

import pytest

from multihost.runtime.quota import quota_cores


def quota(directory, own, files):
    (directory / "own").write_text(own)
    for name, text in files.items():
        path = directory / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return quota_cores(directory / "own", directory / "groups")


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1.0),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "200000 100000"}, 2.0),
        ("0::/host/only\n", {"cpu.max": "50000 100000\n"}, 0.5),
        (
            "5:memory:/x\n4:cpu,cpuacct:/x\n",
            {
                "cpu,cpuacct/x/cpu.cfs_quota_us": "100000",
                "cpu,cpuacct/x/cpu.cfs_period_us": "50000",
            },
            2.0,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {}, None),
        ("", {}, None),
    ],
)
def test_the_smallest_limit_of_the_groups_around_a_process_counts(tmp_path, own, files, cores):
    assert quota(tmp_path, own, files) == cores


def test_where_there_are_no_groups_nothing_is_limited(tmp_path):
    assert quota_cores(tmp_path / "none", tmp_path / "none") is None
