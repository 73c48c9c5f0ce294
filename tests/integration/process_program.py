"""This process as a program whose processes run on a cluster's workers."""

import contextlib

from multihost import active_children
from multihost.client.client import shared_client


@contextlib.contextmanager
def used(cluster, patch):
    """Have this process use a cluster; in the end nothing of it runs there any more."""
    for name, value in cluster.environment.items():
        patch.setenv(name, value)
    try:
        yield cluster
    finally:
        for process in active_children():
            process.kill()
        shared_client().close()
