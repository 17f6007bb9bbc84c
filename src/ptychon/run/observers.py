"""What may happen after each pass: showing progress, stopping early, Ctrl-C.

A callback is called with a `ptychon.run.reconstruct.Progress`; True ends the run. `close()`, where
it exists, is called at the end, whatever the end was.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections import deque
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from ..types import PtychonError
from .meter import Meter

if TYPE_CHECKING:
    from .progress import Progress


class ProgressBar:
    """Passes, R and time left: a bar in a notebook or on a terminal, a line now and then elsewhere.

    Parameters
    ----------
    title : str
        Shown in front, the name of the engine say.
    stream : text stream, optional
        Default ``sys.stderr``. A terminal gets a bar that is redrawn.
    lines : bool
        What anything else gets: a line about every tenth of the way, or (False) every half minute.
    earlier : int
        Passes of the result that the run started from: they are not counted.
    """

    def __init__(
        self,
        title: str = "",
        *,
        stream: TextIO | None = None,
        lines: bool = False,
        earlier: int = 0,
    ) -> None:
        self.title = f"{title} pass".strip()
        self._meter = Meter(self.title, stream=stream, lines=lines)
        self.earlier, self._guessing = earlier, False
        self._shown = self._passes = 0
        self._error = math.nan

    def __call__(self, progress: Progress) -> None:
        """Show one pass."""
        if self._guessing:
            self._begin_again(self.title)
            self._guessing = False
        if progress.passes <= self._passes:  # the run has been restarted
            self._shown = 0
            self._meter.restart()
        self._shown, self._passes = self._shown + 1, progress.passes
        if math.isfinite(progress.error):
            self._error = progress.error  # engines that measure it now and then: the last one stays
        planned = None if progress.planned is None else progress.planned - self.earlier
        self._meter(
            progress.passes - self.earlier,
            planned,
            f"R {self._error:.4f}" if math.isfinite(self._error) else "R ...",
            "" if planned is None else _clock(self._seconds_left(progress)),
        )

    def aside(self, progress: Progress) -> None:
        """Show one pass that makes the first guess: it does not count, and nobody knows how many
        follow.
        """
        engine = "" if progress.engine is None else f"{progress.engine.name} "
        title = f"first guess, {engine}pass"
        if not self._guessing or self._meter.title != title:
            self._begin_again(title)
            self._guessing = True
        error = f"R {progress.error:.4f}" if math.isfinite(progress.error) else "R ..."
        self._meter(progress.passes - self.earlier, None, error)

    def _begin_again(self, title: str) -> None:
        self._meter.close(leave=False)
        self._meter.restart()
        self._meter.title = title

    def _seconds_left(self, progress: Progress) -> float:
        return progress.seconds / self._shown * max(0, (progress.planned or 0) - progress.passes)

    def close(self) -> None:
        """Leave the bar as it is and give the terminal back."""
        self._meter.close()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class StopWhen:
    """Stop when R is good enough or no longer falls.

    Parameters
    ----------
    change : float, optional
        Stop when R has fallen by less than this fraction of itself over the last `passes` measured
        passes.
    passes : int
        Measured passes that are compared.
    error : float, optional
        Stop as soon as R is at or below this.

    Raises
    ------
    PtychonError
        If neither rule is given, or a number is not positive.
    """

    def __init__(
        self, *, change: float | None = None, passes: int = 10, error: float | None = None
    ) -> None:
        if change is None and error is None:
            raise PtychonError("StopWhen needs a rule: change=1e-3, say, or error=0.1")
        for name, value in (("change", change), ("error", error), ("passes", passes)):
            if value is not None and not value > 0:
                raise PtychonError(f"StopWhen: {name} is {value}; it must be positive")
        self.change, self.error = change, error
        self._seen: deque[float] = deque(maxlen=passes + 1)
        self._passes = 0

    def __call__(self, progress: Progress) -> bool:
        """Whether to stop."""
        if progress.passes <= self._passes:  # the run has been restarted
            self._seen.clear()
        self._passes = progress.passes
        if not math.isfinite(progress.error):
            return False
        self._seen.append(progress.error)
        if self.error is not None and progress.error <= self.error:
            return True
        full = len(self._seen) == self._seen.maxlen
        return (
            full
            and self.change is not None
            and self._seen[0] - self._seen[-1] < self.change * self._seen[-1]
        )


class Interrupt:
    """Ctrl-C ends the run after the pass that is going on; what was found is kept. A second Ctrl-C
    ends it at once.

    To be used around the run and as one of its callbacks::

        with Interrupt() as interrupt:
            result = reconstruct(data, callbacks=[interrupt])

    Outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._before: Any = None
        self._active = False

    def __enter__(self) -> Interrupt:
        self._active = threading.current_thread() is threading.main_thread()
        if self._active:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._active:
            signal.signal(
                signal.SIGINT,
                self._before if self._before is not None else signal.default_int_handler,
            )
            self._active = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
        print(
            "\nfinishing this pass; press Ctrl-C again to stop at once", file=sys.stderr, flush=True
        )

    def __call__(self, progress: Progress) -> bool:
        """Whether Ctrl-C was pressed."""
        return self.pressed
