"""Times or profiles ePIE; see README.md beside this file, or --help."""

from __future__ import annotations

import sys

from ptychon.bench.profile import main

if __name__ == "__main__":
    sys.exit(main("epie"))
