"""Run the commands of docs/tutorial.md and renew what the page shows of them.

    python docs/images/tutorial.py

Each block of commands is run, in order, in a folder of its own. What they print replaces the block
of text that follows, and the pictures that they draw are made smaller and kept as tutorial_*.png.
Takes about a minute.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

HERE = Path(__file__).parent
PAGE = HERE.parent / "tutorial.md"
BLOCK = re.compile(r"```sh\n(?P<lines>.*?)```\n\n```text\n(?P<said>.*?)```\n", re.DOTALL)
#: Pictures that the commands leave, by their names here, and their widths (px).
PICTURES = {
    "scan_rpie_report/positions.png": ("scan", 560),
    "scan_rpie.png": ("rpie", 700),
    "scan_rpie_joint_report/deviation.png": ("bars", 760),
    "profile.png": ("profile", 560),
}


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    with TemporaryDirectory() as folder:
        new = BLOCK.sub(lambda block: ran(block, Path(folder)), page)
        for source, (name, width) in PICTURES.items():
            with Image.open(Path(folder) / source) as image:
                size = width, round(width * image.height / image.width)
                small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
            small.quantize(200).save(HERE / f"tutorial_{name}.png", optimize=True)
    PAGE.write_text(new, encoding="utf-8")


def ran(block: re.Match[str], folder: Path) -> str:
    """The block, with what its commands print now."""
    said = ""
    for line in block["lines"].splitlines():
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(line)],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        said += done.stdout
    said = "\n".join(line.rstrip() for line in said.rstrip().splitlines())
    return f"```sh\n{block['lines']}```\n\n```text\n{said}\n```\n"


if __name__ == "__main__":
    main()
