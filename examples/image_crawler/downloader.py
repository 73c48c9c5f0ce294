"""Downloads images into a directory and reports how it went."""

import argparse
import hashlib
import os
import queue
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from multihost.managers import BaseManager


class QueueManager(BaseManager):
    pass


def download(url, directory):
    """Whole or not at all: the file appears under its name when it is complete."""
    name = hashlib.sha256(url.encode()).hexdigest()[:12] + "-" + Path(urlsplit(url).path).name
    part = directory / f"{name}.{os.getpid()}.part"
    try:
        with urlopen(url, timeout=10) as answer:  # noqa: S310 - http, by its finder
            part.write_bytes(answer.read())
    except OSError as error:
        return str(error)
    part.replace(directory / name)
    return "success"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5000", help="host:port of the finder")
    parser.add_argument("--into", type=Path, default=Path("images"))
    parser.add_argument("--patience", type=float, default=5, help="seconds to wait for an image")
    options = parser.parse_args()
    host, port = options.address.rsplit(":", 1)
    options.into.mkdir(parents=True, exist_ok=True)

    QueueManager.register("get_urls")
    QueueManager.register("get_reports")
    manager = QueueManager(
        address=(host, int(port)), authkey=os.environ.get("AUTHKEY", "abc").encode()
    )
    manager.connect()
    urls, reports = manager.get_urls(), manager.get_reports()
    while True:
        try:
            url = urls.get(timeout=options.patience)
        except queue.Empty:
            print("no more images.")
            return
        except EOFError:
            print("the finder has ended.")
            return
        print("download", url, flush=True)
        reports.put((url, download(url, options.into)))


if __name__ == "__main__":
    main()
