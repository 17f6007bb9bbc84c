"""Draw peers.png from the reports of `ptychon bench --peers --peer-scan SCAN --output FILE`.

python docs/images/peers.py measured.json thick.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image
from small import save_small

from ptychon.bench.peers_picture import draw

HERE = Path(__file__).parent


def main() -> None:
    place = HERE / "peers.png"
    draw([json.loads(Path(name).read_text()) for name in sys.argv[1:]], place)
    with Image.open(place) as image:
        image.load()
    save_small(image, place, 1200)


if __name__ == "__main__":
    main()
