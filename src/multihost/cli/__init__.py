"""The command line: thin commands over the server's HTTP, and the processes it starts.

Results go to stdout and messages to stderr; every listing has ``--json``. A
command imports what it needs when it runs, so that help and listings answer
at once: no event loop, no message codec, no rich for them.
"""
