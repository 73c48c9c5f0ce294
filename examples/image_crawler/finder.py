"""Finds the images of a site's pages, has them downloaded, shows what came back."""

import argparse
import os
import queue
import time
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit
from urllib.request import urlopen

from multihost.managers import BaseManager


class QueueManager(BaseManager):
    pass


class Links(HTMLParser):
    """Addresses of a page's images and of the pages that it leads to."""

    def __init__(self, page):
        super().__init__()
        self.page = page
        self.images, self.pages = [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "img" and attributes.get("src"):
            self.images.append(urljoin(self.page, attributes["src"]))
        elif tag == "a" and attributes.get("href"):
            self.pages.append(urljoin(self.page, attributes["href"]).partition("#")[0])


def make_queue():
    return queue.Queue()


def images(site):
    """Every image of the site, once, page after page."""
    pages, seen = [site], {site}
    while pages:
        page = pages.pop(0)
        with urlopen(page, timeout=10) as answer:  # noqa: S310 - pages of the site
            if answer.headers.get_content_type() != "text/html":
                continue
            links = Links(page)
            links.feed(answer.read().decode("utf-8", "replace"))
        for image in links.images:
            if image not in seen:
                seen.add(image)
                yield image
        for other in links.pages:
            if other not in seen and urlsplit(other).netloc == urlsplit(site).netloc:
                seen.add(other)
                pages.append(other)
        time.sleep(0.05)  # be polite


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", help="where to begin, such as http://localhost:8000/")
    parser.add_argument("--address", default="127.0.0.1:5000", help="host:port to listen on")
    options = parser.parse_args()
    host, port = options.address.rsplit(":", 1)

    QueueManager.register("get_urls", callable=make_queue)
    QueueManager.register("get_reports", callable=make_queue)
    manager = QueueManager(
        address=(host, int(port)), authkey=os.environ.get("AUTHKEY", "abc").encode()
    )
    manager.start()
    urls, reports = manager.get_urls(), manager.get_reports()
    wanted = 0
    for image in images(options.site):
        print("found", image, flush=True)
        urls.put(image)
        wanted += 1
    for _ in range(wanted):
        url, outcome = reports.get(timeout=120)
        print(f"{outcome}: {url}", flush=True)
    manager.shutdown()


if __name__ == "__main__":
    main()
