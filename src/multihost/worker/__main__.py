"""``python -m multihost.worker``: the process of one slot; only an agent starts it."""

from multihost.worker.child import main

main()
