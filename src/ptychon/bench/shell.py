"""Runs a command and turns whatever goes wrong into one line and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from ..types import PtychonError


def main(command: click.Command, name: str, arguments: Sequence[str] | None = None) -> int:
    """Exit code of `command` with `arguments`, default those of the process."""
    try:
        code = command.main(
            args=None if arguments is None else list(arguments),
            prog_name=name,
            standalone_mode=False,
        )
        return code if isinstance(code, int) else 0
    except click.UsageError as error:
        return _fail(name, f"{error.format_message().rstrip('.')} (see {name} --help)")
    except click.ClickException as error:
        return _fail(name, error.format_message())
    except (KeyboardInterrupt, click.Abort):
        return _fail(name, "stopped", 130)
    except PtychonError as error:
        return _fail(name, str(error))
    except OSError as error:
        return _fail(name, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except MemoryError:
        return _fail(name, "not enough memory; use fewer positions")


def _fail(name: str, message: str, code: int = 2) -> int:
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    return code
