"""``python -m ptychon`` and the command ``ptychon``: runs the command line and turns failures into
one line.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.

    Returns
    -------
    int
        Exit code: 0; 2 for bad input or a failed run; 130 after Ctrl-C.
    """
    import click

    from .cli.main import cli
    from .types import PtychonError, PtychonWarning

    # the process ends anyway: to look for garbage once more would take a fifth of a short run
    atexit.register(gc.freeze)
    plain = warnings.showwarning

    def show(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, PtychonWarning):
            click.echo(f"ptychon: warning: {message}", err=True)
        else:
            plain(message, category, *rest, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", PtychonWarning)
        warnings.showwarning = show
        try:
            code = cli.main(
                args=None if arguments is None else list(arguments),
                prog_name="ptychon",
                standalone_mode=False,
            )
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx is not None else "ptychon"
            return _fail(f"{error.format_message().rstrip('.')} (see {command} --help)")
        except click.ClickException as error:
            return _fail(error.format_message())
        except (KeyboardInterrupt, click.Abort):
            return _fail("stopped", 130)
        except PtychonError as error:
            return _fail(str(error))
        except BrokenPipeError:  # the reader of a pipe has gone; nothing more can be said to it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 2
        except OSError as error:
            return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except MemoryError as error:
            return _fail(
                f"not enough memory{f' ({error})' if str(error) else ''}; use fewer or smaller "
                "frames"
            )


def _fail(message: str, code: int = 2) -> int:
    print(f"ptychon: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
