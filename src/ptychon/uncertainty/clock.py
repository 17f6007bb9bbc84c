"""When error bars are to end, and how long they take, in words."""

from __future__ import annotations

import math
import time


class Clock:
    """Whether it is time to end, by a limit in seconds, or because somebody wants to.

    Half of the time is for the way to the optimum.
    """

    def __init__(self, limit: float | None) -> None:
        self.began, self.limit = time.monotonic(), math.inf if limit is None else limit

    def hurry(self) -> None:
        """No more than there is."""
        self.limit = 0.0

    def half(self) -> bool:
        """Whether half of the time is over."""
        return time.monotonic() - self.began > self.limit / 2

    def over(self, more: float) -> bool:
        """Whether something that takes `more` seconds would come too late."""
        return time.monotonic() - self.began + more > self.limit


def longest(seconds: float) -> str:
    """About how long something will take."""
    return f"about {seconds:.0f} s" if seconds < 100 else f"about {seconds / 60:.0f} min"
