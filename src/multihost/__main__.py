"""``python -m multihost``: the command line, where the script is not on the PATH."""

from multihost.cli.main import main

if __name__ == "__main__":
    main()
