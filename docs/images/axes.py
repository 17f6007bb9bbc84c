"""Draw axes.png, the figure of docs/conventions.md: axes, signs and units.

python docs/images/axes.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ptychon.plots.figures import Axes, Circle, Figure, Rectangle

HERE = Path(__file__).parent
ARROW = {"arrowstyle": "-|>", "color": "black", "lw": 1.2}


def panel(ax: Axes, title: str, width: float, height: float) -> None:
    """A plane: rows grow downwards, columns to the right."""
    ax.set(xlim=(-1.6, width + 0.8), ylim=(height + 1.5, -1.6), aspect="equal")
    ax.axis("off")
    ax.set_title(title, fontsize=10)
    ax.annotate("", (2.6, -0.6), (-0.6, -0.6), arrowprops=ARROW)
    ax.annotate("", (-0.6, 2.6), (-0.6, -0.6), arrowprops=ARROW)
    ax.text(1.0, -0.85, "column, x", ha="center", va="bottom", fontsize=8)
    ax.text(-0.85, 1.0, "row, y", ha="right", va="center", rotation=90, fontsize=8)


def main() -> None:
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    beam, sample, detector = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))

    beam.set(xlim=(-0.6, 10.6), ylim=(-3.4, 3.6))
    beam.axis("off")
    beam.set_title("beam", fontsize=10)
    beam.fill([0, 3, 0], [0.9, 0, -0.9], color="0.85")
    beam.fill([3, 4.2, 4.2], [0, 0.36, -0.36], color="0.85")
    beam.fill([4.2, 9.6, 9.6, 4.2], [0.36, 2.2, -2.2, -0.36], color="0.93")
    beam.plot([4.2, 4.2], [-2.3, 2.3], color="black", lw=2)
    beam.plot([9.6, 9.6], [-2.6, 2.6], color="black", lw=2)
    beam.annotate("", (10.4, 0), (-0.4, 0), arrowprops=ARROW)
    for x, name in ((2.2, "focus"), (4.6, "sample"), (9.6, "detector")):
        beam.text(x, 2.75, name, ha="center", fontsize=9)
    beam.annotate("", (9.6, -2.75), (4.2, -2.75), arrowprops=ARROW | {"arrowstyle": "<|-|>"})
    beam.text(6.9, -3.2, "distance (m)", ha="center", fontsize=8)
    beam.annotate("", (4.2, -1.3), (3, -1.3), arrowprops=ARROW | {"arrowstyle": "<|-|>"})
    beam.text(2.95, -1.95, "focus_distance\n(near field, m)", ha="center", va="center", fontsize=8)
    beam.text(6.8, 0.15, "z", fontsize=9)
    beam.text(4.5, 1.25, "frame = |F[probe × object]|²\nF: kernel exp(−2πi k·r)", fontsize=7.5)
    beam.text(0, 1.35, "wavelength (m)\nenergy (J), voltage (V)", fontsize=8)

    panel(sample, "object", 8, 7)
    sample.add_patch(Rectangle((0, 0), 8, 7, fill=False, lw=1.5))
    for y in range(3):
        for x in range(4):
            sample.plot(2.2 + 1.2 * x, 2.2 + 1.3 * y, ".", color="0.4", ms=4)
    sample.add_patch(Rectangle((1.4, 1.5), 4.0, 4.0, fill=False, ls="--"))
    sample.add_patch(Circle((3.4, 3.5), 1.15, color="0.75", alpha=0.7))
    sample.plot(3.4, 3.5, "k+", ms=9)
    sample.annotate(
        "position (row, column)\nof the probe", (3.4, 3.5), (0.9, 6.6), fontsize=8,
        arrowprops=ARROW | {"lw": 0.8},
    )  # fmt: skip
    sample.text(1.5, 1.35, "window P x Q", fontsize=8)
    sample.text(0.1, 8.0, "object [0, 0] top left;\npixel_size (dy, dx) in m", fontsize=8)

    panel(detector, "frame", 8, 7)
    detector.add_patch(Rectangle((0, 0), 8, 7, fill=False, lw=1.5))
    for radius, grey in ((2.4, "0.92"), (1.6, "0.8"), (0.8, "0.6")):
        detector.add_patch(Circle((4, 3.5), radius, color=grey))
    detector.plot(4, 3.5, "k+", ms=9)
    detector.annotate(
        "zero frequency\nat [P//2, Q//2]", (4, 3.5), (4.6, 6.2), fontsize=8,
        arrowprops=ARROW | {"lw": 0.8},
    )  # fmt: skip
    detector.text(0.1, 8.0, "detector_pixel_size (dy, dx) in m;\nmask True where valid", fontsize=8)
    path = HERE / "axes.png"
    figure.savefig(path, dpi=100)
    with Image.open(path) as image:
        grey = image.convert("L").quantize(32)
    grey.save(path, optimize=True)


if __name__ == "__main__":
    main()
