"""``python -m ptychon.bench``."""

from __future__ import annotations

import sys

from .command import command
from .shell import main

if __name__ == "__main__":
    sys.exit(main(command, "ptychon bench"))
