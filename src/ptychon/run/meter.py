"""How far something is, for whoever watches: a bar in a notebook or on a terminal (tqdm), and where
nobody watches, in a log file or a pipe, a line now and then.
"""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

#: Seconds without a terminal after which a line says that something goes on, again and again.
SIGN_OF_LIFE = 30.0


class Meter:
    """A bar, or lines.

    Parameters
    ----------
    title : str
        Shown in front.
    stream : text stream, optional
        Default ``sys.stderr``.
    lines : bool
        Whether what is no terminal gets a line every tenth of the way; otherwise it gets one every
        `every` seconds, the first after as many.
    every : float
        Seconds.
    """

    def __init__(
        self,
        title: str = "",
        *,
        stream: TextIO | None = None,
        lines: bool = False,
        every: float = SIGN_OF_LIFE,
    ) -> None:
        self.title, self.lines, self.every = title, lines, every
        self.stream = sys.stderr if stream is None else stream
        self._bar: Any = None
        self._began = self._said = time.monotonic()
        self._tenth = -1

    def __call__(self, done: int, total: int | None, note: str = "", left: str = "") -> None:
        """Say that `done` of `total` is done.

        Parameters
        ----------
        done : int
        total : int or None
        note : str
            Shown behind the numbers.
        left : str
            Time left, where it is known; a bar computes it itself.
        """
        if in_notebook() or self.stream.isatty():
            self._draw(done, total, note)
            return
        now = time.monotonic()
        if self.lines:
            tenth = 10 * done // total if total else done // 10
            due = tenth > self._tenth or done == total
            self._tenth = tenth
        else:
            due = now - self._said >= self.every
        if due:
            self._said = now
            count = f"{done}/{total}" if total else str(done)
            parts = (f"{self.title} {count}".strip(), note, f"{left} left" if left else "")
            print("  ".join(part for part in parts if part), file=self.stream, flush=True)

    def restart(self) -> None:
        """Begin again from nothing."""
        self._tenth = -1

    def _draw(self, done: int, total: int | None, note: str) -> None:
        if self._bar is None:
            self._bar = _bar_class()(
                desc=self.title,
                total=total,
                file=None if in_notebook() else self.stream,
                dynamic_ncols=True,
                bar_format="{desc} {bar} {n_fmt}/{total_fmt}  {postfix}  {remaining} left"
                if total
                else "{desc} {n_fmt}  {postfix}  {elapsed}",
            )
        elif self._bar.desc.rstrip(": ") != self.title or self._bar.total != total:
            self._bar.set_description(self.title, refresh=False)
            if self._bar.total != total:
                self._bar.reset(total)
        self._bar.set_postfix_str(note, refresh=False)
        if done < self._bar.n:
            self._bar.n = done
        self._bar.update(done - self._bar.n)

    def close(self, leave: bool = True) -> None:
        """Give the terminal back; the bar stays, or (`leave` false) goes."""
        if self._bar is not None:
            self._bar.leave = leave
            self._bar.refresh()
            self._bar.close()
            self._bar = None


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _bar_class() -> Any:
    """tqdm's widget in a notebook that has widgets, and its text elsewhere."""
    if in_notebook():
        try:
            import ipywidgets  # noqa: F401
            from tqdm.notebook import tqdm as widget

            return widget
        except ImportError:
            pass
    from tqdm import tqdm

    return tqdm
