"""numba, with what it compiles kept on disk.

The first start on a machine compiles for some seconds. What is kept stands in the user's cache
directory, or in the one that `NUMBA_CACHE_DIR` names, under a digest of these sources: numba looks
for changes only in the file of the function that it compiles, not in those that it calls. Where
there is no such directory, or it can't be written, every start compiles. Beside the compiler stand
the two instructions that Python has no words for: reading eight bytes at once, and copying bytes.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_untracked
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from alpha_pulse.contracts import market

Function = TypeVar("Function", bound=Callable[..., Any])


def _cache_dir(named: str) -> str:
    """Return where compiled code is kept, "" where it can't be.

    named: the directory that somebody named, "": nobody did.
    """
    found = hashlib.sha256()
    for source in (Path(market.__file__), *sorted(Path(__file__).parents[1].rglob("*.py"))):
        found.update(source.read_bytes())
    try:
        if named:
            base = Path(named)
        else:
            caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            base = caches / "alpha-pulse" / "compiled"
        directory = base / found.hexdigest()[:16]
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or a file system that is read-only
        return ""
    return str(directory) if os.access(directory, os.W_OK) else ""


numba.config.CACHE_DIR = _cache_dir(numba.config.CACHE_DIR)
_IS_KEPT = bool(numba.config.CACHE_DIR)


def compiled(function: Function) -> Function:
    """Return the function, compiled for the types that it is first called with."""
    return cast(Function, numba.njit(cache=_IS_KEPT, error_model="numpy")(function))


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    return builder.gep(make_array(kind)(context, builder, array).data, [at])


@intrinsic  # type: ignore[untyped-decorator]
def read_eight(typing: Any, array: Any, at: Any) -> Any:
    """Return eight bytes of an array from a position on as a number, lowest byte first.

    Whoever calls makes sure that they are inside the array.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _pointer(context, builder, signature.args[0], *arguments)
        place = builder.bitcast(place, ir.IntType(64).as_pointer())
        found = builder.load(place)
        found.align = 1
        return impl_ret_untracked(context, builder, signature.return_type, found)

    return types.uint64(array, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def copy_bytes(typing: Any, target: Any, target_at: Any, source: Any, at: Any, size: Any) -> Any:
    """Copy bytes from one array into another; both have room from their positions on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        to = _pointer(context, builder, kinds[0], arguments[0], arguments[1])
        origin = _pointer(context, builder, kinds[2], arguments[2], arguments[3])
        cgutils.raw_memcpy(builder, to, origin, arguments[4], 1)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), generate
