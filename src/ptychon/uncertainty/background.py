"""What a background that is free may be: images whose sum it is.

smooth   cosines over the detector, up to two periods across each side
level    the same number of counts in all pixels
pixels   anything: no images, each pixel for itself
"""

from __future__ import annotations

import numpy as np

from ..types import REAL, FloatArray, PtychonError

SMOOTH, LEVEL, PIXELS = "smooth", "level", "pixels"
FORMS = (SMOOTH, LEVEL, PIXELS)
#: Half periods of the finest cosine.
ORDER = 4


def columns_of(form: str, shape: tuple[int, int], near_field: bool = False) -> FloatArray | None:
    """The images, (n, P, Q) float32 in the order of `Problem.amplitude`; None for pixels.

    Raises
    ------
    PtychonError
        For another form.
    """
    if form not in FORMS:
        raise PtychonError(
            f"the form of the background is {form!r}; choose one of {', '.join(FORMS)}"
        )
    if form == PIXELS:
        return None
    orders = range(1 if form == LEVEL else ORDER + 1)
    rows, columns = (np.cos(np.pi * np.outer(orders, (np.arange(n) + 0.5) / n)) for n in shape)
    images = np.einsum("ap,bq->abpq", rows, columns).reshape(-1, *shape)
    images = images if near_field else np.fft.ifftshift(images, axes=(1, 2))
    return np.ascontiguousarray(images, REAL)
