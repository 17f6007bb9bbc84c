"""A stand-in for a device on NumPy: its arrays refuse to be mixed with those of the host, as CuPy's
do.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import scipy.fft

from ptychon.backends.base import Backend
from ptychon.kernels import build


class DeviceArray(np.ndarray):
    """An array on the device."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        return _on_device(
            lambda *args, **kw: getattr(ufunc, method)(*args, **kw), inputs, options, out
        )

    def __array_function__(self, function, types, args, options):
        return _on_device(function, args, options, None)


def _on_device(function, args, options, out):
    """Run on plain arrays and put the result on the device; TypeError where one comes from the
    host.
    """

    def plain(a):
        if isinstance(a, DeviceArray):
            return a.view(np.ndarray)
        if isinstance(a, np.ndarray) and a.ndim:
            raise TypeError(f"an array of the host, shape {a.shape}, among those of the device")
        return type(a)(plain(b) for b in a) if isinstance(a, (list, tuple)) else a

    extra = {} if out is None else {"out": plain(out)}
    result = function(
        *plain(args), **{name: plain(value) for name, value in options.items()}, **extra
    )
    if out is not None:
        return out[0]
    return result.view(DeviceArray) if isinstance(result, np.ndarray) else result


def _move(a):
    return np.array(a).view(DeviceArray)


def _fetch(a):
    if not isinstance(a, DeviceArray):
        raise TypeError(f"{type(a).__name__} is not on the device")
    return np.array(a.view(np.ndarray))


def _made(name):
    return lambda *args, **options: getattr(np, name)(*args, **options).view(DeviceArray)


def _where(condition, one, other):
    """CuPy asks for an array."""
    assert isinstance(condition, DeviceArray)
    return np.where(condition, one, other)


def _transform(function):
    def on_device(a):
        assert isinstance(a, DeviceArray)
        return function(a.view(np.ndarray), norm="ortho").view(DeviceArray)

    return on_device


def device_backend() -> Backend:
    """Reference kernels on arrays that are not those of the host."""
    xp = SimpleNamespace(
        **{
            name: getattr(np, name)
            for name in ("broadcast_to", "concatenate", "exp", "maximum", "sqrt", "stack")
        }
    )
    for name in ("zeros", "ones", "empty", "arange"):
        setattr(xp, name, _made(name))
    xp.asarray = lambda a, dtype=None: _move(np.asarray(a, dtype))
    xp.fft = SimpleNamespace(fftfreq=lambda n: np.fft.fftfreq(n).view(DeviceArray))
    xp.where = _where
    xp.linalg = SimpleNamespace(inv=np.linalg.inv)
    return Backend(
        name="device",
        xp=xp,
        fft2=_transform(scipy.fft.fft2),
        ifft2=_transform(scipy.fft.ifft2),
        kernels=build(),
        asarray=_move,
        to_host=_fetch,
    )
