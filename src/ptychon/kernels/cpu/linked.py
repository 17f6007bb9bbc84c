"""Functions that exist once as machine code, whoever calls them.

What Numba compiles into a caller it optimises again with that caller, and with every function in
between: the transforms cost more there than all else together. A linked function is compiled by
itself, for one signature. Its callers know it by a name that is the same in every process, and the
linker puts its address into them, when they are compiled as when they are read from disk. How it
rounds cannot depend on who calls it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import llvmlite.binding
from numba.core import cgutils, types
from numba.extending import intrinsic

from .cache import LINKED, cached, linkers

#: Arrays in C order of complex64, of float32 and of truth values; those that are `KEPT` are only
#: read.
WAVES, WAVE, WAVE_ROW = (types.Array(types.complex64, n, "C") for n in (3, 2, 1))
FRAME, FLOATS = (types.Array(types.float32, n, "C") for n in (2, 1))
KEPT_WAVES, KEPT_WAVE, KEPT_WAVE_ROW = (
    types.Array(types.complex64, n, "C", readonly=True) for n in (3, 2, 1)
)
KEPT_FRAME = types.Array(types.float32, 2, "C", readonly=True)
KEPT_FLOATS = types.Array(types.float32, 1, "C", readonly=True)
KEPT_BYTES = types.Array(types.boolean, 1, "C", readonly=True)
ROWS = types.Array(types.int64, 2, "C")
KEPT_MASK = types.Array(types.boolean, 2, "C", readonly=True)
#: Types of tuples, which Numba leaves without types of their own.
uniform: Any = types.UniTuple
mixed: Any = types.Tuple

#: What compiling `modulus_return` and all that it calls takes on one core, seconds (AMD Zen 3).
TRANSFORMS = 4.0
_all: list[_Linked] = []


class _Linked:
    """A function, its signature, and whether the linker knows of it."""

    def __init__(self, function: Callable[..., Any], signature: Any, options: dict[str, Any]):
        self.function = function
        self.symbol, self.signature, self.known = LINKED + function.__name__, signature, False
        self.dispatcher = cached(
            function, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, **options
        )

    def missing(self) -> bool:
        """Whether it must be compiled yet."""
        target = self.dispatcher.targetctx.codegen()
        return not (self.known or self.dispatcher._cache.has(self.signature, target))

    def link(self) -> None:
        """Compile it or read it from disk, once a process, and tell the linker where it is."""
        if not self.known:
            self.dispatcher.compile(self.signature)
            found = self.dispatcher.overloads[self.signature.args]
            where = found.library.get_pointer_to_function(found.fndesc.llvm_func_name)
            llvmlite.binding.add_symbol(self.symbol, where)
            self.known = True

    def typed(self, context: Any, *given: Any) -> Any:
        """What Numba asks of a call: its signature, and what emits its code."""
        self.link()
        return self.signature, self._emit

    def _emit(self, context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds, result = self.signature.args, self.signature.return_type
        tools: Any = cgutils
        callee = tools.get_or_insert_function(
            builder.module, context.call_conv.get_function_type(result, kinds), self.symbol
        )
        status, value = context.call_conv.call_function(builder, callee, result, kinds, args)
        with tools.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value() if result == types.void else value


def linked(signature: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make a function for compiled code alone, compiled once.

    Parameters
    ----------
    signature : numba signature
        The only one; arguments are converted to it where Numba's rules allow that.
    **options
        Of `numba.njit`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        one = _Linked(function, signature, options)
        linkers[one.symbol] = one.link
        _all.append(one)

        def call(context: Any, *given: Any) -> Any:
            return one.typed(context, *given)

        # Numba reads the number and names of arguments from here
        own = inspect.signature(function)
        first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        call.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[first, *own.parameters.values()]
        )
        call.__name__, call.__doc__ = function.__name__, function.__doc__
        made: Any = intrinsic
        return made(call)

    return decorate


def transforms_left() -> float:
    """Seconds that the transforms and the modulus constraint, which engines share, take to be
    compiled where they are not on disk.
    """
    ours = [one for one in _all if one.function.__module__.endswith((".fft", ".modulus"))]
    return TRANSFORMS * sum(one.missing() for one in ours) / len(ours)
