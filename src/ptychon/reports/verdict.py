"""The verdict of a report: a few rules, each a sentence with its numbers, and the worst of them as
the headline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..checks.convergence import CHANGED, trail
from ..checks.half_scans import Agreement
from ..data.result import Result
from ..engines import Engine, registry
from ..metrics.smoothed import sentence as smoother
from ..run.doubts import SETTLES, doubts, no_better
from ..uncertainty.half_data_record import HalfDataTest
from ..uncertainty.verdict import HOLD, NOT
from .numbers import Fit

Level = Literal["good", "note", "care", "bad"]

HEADLINES: dict[str, str] = {
    "good": "Nothing speaks against this reconstruction.",
    "care": "Use this reconstruction with care.",
    "bad": "Do not use this reconstruction.",
}
MARKS: dict[Level, str] = {"good": "✓", "note": "·", "care": "!", "bad": "✗"}


@dataclass(frozen=True)
class Reason:
    """One sentence of the verdict and how it weighs; a "note" says what is not known and weighs
    nothing.
    """

    level: Level
    text: str

    @property
    def mark(self) -> str:
        return MARKS[self.level]


@dataclass(frozen=True)
class Verdict:
    """The headline and its reasons, the worst first."""

    level: Level
    reasons: tuple[Reason, ...]

    @property
    def headline(self) -> str:
        return HEADLINES[self.level]


def verdict(
    result: Result,
    fit: Fit | None,
    found: Agreement | None,
    halves: HalfDataTest | None = None,
    far: bool | None = None,
) -> Verdict:
    """Judge a reconstruction by what is known of it.

    Parameters
    ----------
    result : Result
    fit : Fit or None
        Without the data half of the rules are silent.
    found : Agreement or None
        Without half-scans the resolution is unknown.
    halves : HalfDataTest, optional
        What two halves of the data say of the error bars.
    far : bool, optional
        Whether the data are of the far field; default what the result says of its scan.
    """
    if far is None:
        far = (result.settings.get("scan") or {}).get("geometry", "far") == "far"
    reasons = [_halves(result, found), _convergence(result)]
    reasons += [
        Reason(doubt.level, f"{doubt.text[0].upper()}{doubt.text[1:]}.")
        for doubt in doubts(result, far)
    ]
    if halves is not None:
        how = dict(result.settings).get("error_bars")
        wider = isinstance(how, dict) and bool(how.get("widened"))
        reasons.append(_bars(halves, wider))
    reasons += _checked(result)
    if fit is not None:
        reasons += [_residual(result, fit), _frames(fit), _sampling(fit)]
        settled = len(result.errors) >= SETTLES
        if fit.smooth is not None and settled and all(reason.level != "bad" for reason in reasons):
            said = smoother(fit.smooth, len(result.probe))
            reasons.append(Reason("care", f"{said[0].upper()}{said[1:]}."))
    else:
        reasons.append(
            Reason(
                "care", "The data were not at hand, so the fit of single frames was not looked at."
            )
        )
    order: tuple[Level, ...] = ("bad", "care", "note", "good")
    reasons = sorted(reasons, key=lambda r: order.index(r.level))
    worst = reasons[0].level
    return Verdict("good" if worst == "note" else worst, tuple(reasons))


def _halves(result: Result, found: Agreement | None) -> Reason:
    if found is None:
        return Reason(
            "note",
            "Its resolution is not known: no two independent half-scans were compared "
            "(--half-scans).",
        )
    rings = found.rings
    pixel = 1.0 if rings.unit == "px" else max(result.pixel_size or (1.0, 1.0))
    if not math.isfinite(rings.resolution):
        return Reason(
            "bad",
            "Two independent half-scans have nothing in common above the half-bit curve: this "
            "is noise.",
        )
    pixels = rings.resolution / pixel
    text = resolution(rings.resolution, found.interval, rings.unit, rings.nyquist_limited)
    if rings.nyquist_limited:
        return Reason(
            "good", f"Two independent half-scans agree at all periods (half-bit curve): {text}."
        )
    sentence = (
        f"Two independent half-scans agree down to {text} by the half-bit curve, "
        f"{pixels:.1f} pixels."
    )
    if pixels > 12:
        return Reason("care", sentence + " That is coarse for these pixels.")
    return Reason("good", sentence)


def _bars(halves: HalfDataTest, wider: bool) -> Reason:
    """What halves say of bars, which are `wider` where they were widened by halves."""
    said = halves.sentence()
    sentence = f"{said[0].upper()}{said[1:]}."
    if halves.widened:
        return Reason("note" if halves.bars_hold else "care", sentence)
    if halves.describes:
        return Reason("good", sentence)
    if wider:
        return Reason("care", sentence + " Its error bars are widened by these halves.")
    return Reason("care", sentence + " Do not rely on its error bars.")


def _checked(result: Result) -> list[Reason]:
    """What a check on simulated data has said of the error bars, where there was one."""
    how = dict(result.settings).get("error_bars")
    said, why = "", ""
    if isinstance(how, dict):
        said, why = (str(how.get(name) or "") for name in ("verdict", "reason"))
    if said == HOLD:
        return [Reason("good", "Its error bars hold on simulated data.")]
    if said == NOT:
        return [Reason("care", f"Its error bars do not hold on simulated data: {why}.")]
    return [Reason("note", f"Of its error bars: {why}.")] if said else []


def _convergence(result: Result) -> Reason:
    seen = trail(result)
    if seen.measured < 3:
        return Reason(
            "care",
            f"R was measured in {seen.measured} passes only, too few to say whether it has "
            "settled.",
        )
    passes = f"the last {seen.passes} passes"
    if seen.drop > CHANGED:
        return Reason("care", f"R still fell by {seen.drop:.0%} over {passes}: run it longer.")
    if seen.drop < -CHANGED:
        return Reason(
            "care", f"R rose by {-seen.drop:.0%} over {passes}: the steps may be too large."
        )
    return Reason("good", f"R has settled: it changed by {abs(seen.drop):.1%} over {passes}.")


def _residual(result: Result, fit: Fit) -> Reason:
    gain = 1 - (fit.residual / max(fit.flat, 1e-300)) ** 2
    texts = [f"R is {fit.residual:.4f}; without any object the same probe gives {fit.flat:.4f}"]
    if fit.noise is not None:
        texts.append(f"and counting noise alone would give {fit.noise:.4f}")
    sentence = " ".join(texts) + "."
    if no_better(fit.residual, fit.flat, fit.noise) is not None:
        return Reason(
            "bad",
            sentence
            + " The object explains nothing: check positions, orientation and first probe.",
        )
    if fit.noise is not None and fit.residual < 1.1 * fit.noise:
        if gain < 0.1:
            return Reason(
                "good",
                sentence
                + (
                    " Noise is nearly all there is in single frames, so R says little; the "
                    "halves do."
                ),
            )
        return Reason("good", sentence + " The data are explained down to their noise.")
    if gain < 0.1:
        return Reason(
            "care",
            sentence
            + (
                f" The object explains only {gain:.0%} of the misfit: look at the halves and "
                "the picture."
            ),
        )
    if fit.noise is not None and fit.residual > 3 * fit.noise:
        several = "modes" in registry.get(result.engine, Engine).copes
        engine = "" if several else "-e rpie "
        return Reason(
            "care",
            sentence
            + f" Something other than noise is not explained ({fit.residual / fit.noise:.1f} "
            "times the noise): more probe "
            f"modes ({engine}--modes {len(result.probe) + 2}), better positions or a mask may "
            "help.",
        )
    return Reason("good", sentence)


def _frames(fit: Fit) -> Reason:
    n = len(fit.per_frame)
    if not fit.bad.size:
        return Reason("good", f"None of the {n} frames fits much worse than the others.")
    names = ", ".join(map(str, fit.bad[:6])) + (", ..." if fit.bad.size > 6 else "")
    sentence = (
        f"{fit.bad.size} of {n} frames fit{'' if fit.bad.size > 1 else 's'} much worse than the "
        f"others ({names})"
    )
    return Reason("care", sentence + ": look at them, and drop them if they are broken.")


def _sampling(fit: Fit) -> Reason:
    ratio = fit.sampling_ratio
    sentence = f"There are {ratio:.3g} measurements for each unknown pixel of the object."
    if ratio < 2:
        return Reason("bad", sentence + " Two or more are needed.")
    if ratio < 4:
        return Reason("care", sentence + " That is few: the scan should overlap more.")
    return Reason("good", sentence)


def length(value: float, unit: str) -> str:
    """A resolution for people."""
    from ..units import pretty

    if not math.isfinite(value):
        return "none"
    return f"{value:.3g} px" if unit == "px" else pretty(value, "length", 3)


def resolution(
    value: float, interval: tuple[float, float], unit: str, limited: bool, confidence: str = "95 %"
) -> str:
    """A resolution with its interval, or that the pixels end before the structure does: then it has
    none.
    """
    if limited:
        return f"better than {length(value, unit)}, the limit of the pixels"
    low, high = (length(v, unit) for v in interval)
    return f"{length(value, unit)} ({confidence}: {low} to {high})"
