"""Run the commands of docs/tutorial.md and docs/gallery.md and renew what the pages show of them.

    python docs/images/pages.py
    python docs/images/pages.py gallery

The blocks of commands of a page are run, in order, in a folder of its own. What they print replaces
the block of text that follows, and the pictures that they draw are made smaller and kept as
PAGE_*.png. Takes about a minute a page.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from small import save_small

HERE = Path(__file__).parent
BLOCK = re.compile(r"```sh\n(?P<lines>.*?)```\n\n```text\n(?P<said>.*?)```\n", re.DOTALL)
#: Pictures that the commands of a page leave, by their names here, and their widths (px).
PICTURES = {
    "tutorial": {
        "scan_rpie_report/positions.png": ("scan", 560),
        "scan_rpie.png": ("rpie", 700),
        "scan_rpie_joint_report/deviation.png": ("bars", 760),
        "profile.png": ("profile", 560),
    },
    "gallery": {
        "error_bars.png": ("error_bars", 700),
        "modes_rpie.png": ("modes", 640),
        "low_rpie_joint_report/deviation.png": ("low", 640),
        "moved_rpie.png": ("moved", 560),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="default all")
    for name in parser.parse_args().pages or PICTURES:
        renew(name)


def renew(name: str) -> None:
    """Run one page."""
    path = HERE.parent / f"{name}.md"
    with TemporaryDirectory() as folder:
        new = BLOCK.sub(lambda block: ran(block, Path(folder)), path.read_text(encoding="utf-8"))
        for source, (short, width) in PICTURES[name].items():
            with Image.open(Path(folder) / source) as image:
                save_small(image, HERE / f"{name}_{short}.png", width)
    path.write_text(new, encoding="utf-8")


def ran(block: re.Match[str], folder: Path) -> str:
    """The block, with what its commands print now."""
    said = ""
    for line in block["lines"].splitlines():
        program, *arguments = shlex.split(line)
        if program == "python":
            arguments[0] = str(HERE.parents[1] / arguments[0])
        else:
            arguments = ["-m", program, *arguments]
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, check=True
        )
        said += done.stdout
    said = "\n".join(line.rstrip() for line in said.rstrip().splitlines())
    return f"```sh\n{block['lines']}```\n\n```text\n{said}\n```\n"


if __name__ == "__main__":
    main()
