"""Entry point of `python -m hrseg`."""

import sys

from hrseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
