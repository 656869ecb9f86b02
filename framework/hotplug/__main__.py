"""`python -m hotplug` is the program `hotplug`."""

from __future__ import annotations

import sys

from hotplug.cli import main

if __name__ == "__main__":
    sys.exit(main())
