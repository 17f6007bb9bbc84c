"""Pictures of reconstructions as small files: greys, and the hues that occur."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def save_small(image: Image.Image, path: Path, width: int) -> None:
    """Write a picture `width` pixels wide, with a palette of 128 greys and 128 other colours."""
    size = width, round(width * image.height / image.width)
    small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    hues = small.quantize(128, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    greys = [level for k in range(128) for level in [round(255 * k / 127)] * 3]
    palette = Image.new("P", (1, 1))
    palette.putpalette((greys + hues)[: 3 * 256])
    small.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)
