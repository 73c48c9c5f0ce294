"""``python -m multihost.worker``: a slot's process, or what they are forked from.

Only an agent starts it.
"""

import sys

if sys.argv[1] == "template":
    from multihost.worker.template import main
else:
    from multihost.worker.start import main

main()
