"""The noise model, and everything that asks it: one owner.

`Noise` is what a detector pixel says of its wave: data, energy, pull, information, sampling,
misfit. `Likelihood` says the same of expected counts. `noise_of` answers which noise a problem has,
`noise_in` which a result rests on, both whether the variance is known, which it is, and whether it
is learned. `background` holds what is counted besides the wave, `moments` what misfits are expected
to be, `per_frame` a variance for each frame.
"""

from .background import counted, counts_of, subtracted, with_background, with_read_noise
from .likelihood import Likelihood
from .moments import ANSCOMBE, COUNT_VARIANCE
from .record import KINDS, Noise
from .stated import frame_variances, learned_variance, mean_variance, noise_in, noise_of, told

__all__ = [
    "ANSCOMBE",
    "COUNT_VARIANCE",
    "KINDS",
    "Likelihood",
    "Noise",
    "counted",
    "counts_of",
    "frame_variances",
    "learned_variance",
    "mean_variance",
    "noise_in",
    "noise_of",
    "subtracted",
    "told",
    "with_background",
    "with_read_noise",
]
