"""Pictures of reconstructions as small files: greys, and the hues that occur."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree


def save_small(image: Image.Image, path: Path, width: int) -> None:
    """Write a picture `width` pixels wide, with a palette of 64 greys and up to 192 colours."""
    size = width, round(width * image.height / image.width)
    small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    hues = small.quantize(192, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    greys = np.repeat(np.rint(np.linspace(0, 255, 64)).astype(np.uint8)[:, None], 3, axis=1)
    colours = np.concatenate([greys, np.reshape(np.array(hues[: 3 * 192], np.uint8), (-1, 3))])
    # the nearest colour exactly; Pillow's own search is not, and white becomes grey
    nearest = cKDTree(colours.astype(float)).query(np.asarray(small, float))[1]
    out = Image.fromarray(nearest.astype(np.uint8))
    out.putpalette(colours.ravel().tolist())
    out.save(path, optimize=True)
