"""Claims about files that are written past the page cache."""

import os

import pytest

from multihost.server.directfile import BLOCK_BYTES, BUFFER_BYTES, DirectFile


@pytest.mark.parametrize("is_direct", [True, False])
@pytest.mark.parametrize(
    "sizes",
    [
        [1],
        [BLOCK_BYTES],
        [BUFFER_BYTES, 17],
        [3 * BUFFER_BYTES + 5, 2 * BLOCK_BYTES],  # unaligned in the middle
        [100, BLOCK_BYTES, 100],
    ],
)
def test_what_was_written_is_in_the_file_in_order(tmp_path, is_direct, sizes):
    parts = [os.urandom(size) for size in sizes]
    file = DirectFile(tmp_path / "blob", is_direct=is_direct)
    for part in parts:
        file.write(part)
    file.sync()
    file.close()
    assert (tmp_path / "blob").read_bytes() == b"".join(parts)


def test_a_file_system_without_direct_io_is_written_the_usual_way(tmp_path, monkeypatch):
    real = os.write
    refused = []

    def write(descriptor, data):
        if not refused:
            refused.append(len(data))
            raise OSError(22, "Invalid argument")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    file = DirectFile(tmp_path / "blob", is_direct=True)
    file.write(b"x" * 3 * BLOCK_BYTES)
    file.close()
    assert (tmp_path / "blob").read_bytes() == b"x" * 3 * BLOCK_BYTES
