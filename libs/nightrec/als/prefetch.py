"""The processor's prefetch instruction for compiled loops that jump about in a matrix too large for its caches."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic

_LINE = 64  # bytes of a cache line, on every processor of today


@intrinsic
def _prefetch(_typing: Any, matrix: Any, _row: Any, _byte: Any) -> Any:
    """Have the cache line `byte` bytes into matrix[row] on its way; an address that does not exist does nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        told = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, told.strides)[0]  # type: ignore[no-untyped-call]
        place = builder.add(builder.ptrtoint(told.data, stride.type), builder.mul(arguments[1], stride))
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        name = "llvm.prefetch.p0"
        ask = cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
        # To read, to keep in every cache, of data.
        how = [number(0), number(3), number(1)]
        builder.call(ask, [builder.inttoptr(builder.add(place, arguments[2]), pointer), *how])
        return context.get_dummy_value()

    return types.void(matrix, types.int64, types.int64), generate


@njit(cache=True, nogil=True)
def prefetch(matrix: Any, row: int) -> None:
    """Have a row of a C-contiguous matrix on its way to the core; what is computed meanwhile need not wait for it."""
    for byte in range(0, matrix.shape[1] * matrix.itemsize, _LINE):
        _prefetch(matrix, row, byte)  # type: ignore[call-arg]  # numba gives the first argument
