"""How kernels are compiled, and the few bit operations that numba has no words for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])

BLOCK = 64
"""Number of values that `block_mask` compares at once."""


def kernel(function: F) -> F:
    """Compile `function` with numba: no Python inside, GIL released, machine code cached on disk."""
    return cast(F, numba.njit(nogil=True, cache=True)(function))


def inlined_kernel(function: F) -> F:
    """As `kernel`, for a part that is always made one with its caller (array arguments are costly to hand over)."""
    return cast(F, numba.njit(nogil=True, cache=True, forceinline=True)(function))


def _typed_intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    return cast(Callable[..., Any], intrinsic(function))


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), zeros)


def _ordered_block(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    """The ordered patterns of 64 float16 values that start at `offset`, as a vector."""
    vector = ir.VectorType(ir.IntType(16), BLOCK)
    data = context.make_array(array_type)(context, builder, array).data
    pointer = builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())
    raw = builder.load(pointer, align=2)
    sign = builder.ashr(raw, ir.Constant(vector, [15] * BLOCK))
    return builder.xor(raw, builder.or_(sign, ir.Constant(vector, [0x8000] * BLOCK)))


@_typed_intrinsic
def _block_mask(typing_context: Any, raw: Any, offset: Any, low: Any, span: Any) -> Any:
    signature = types.uint64(raw, types.intp, types.uint16, types.uint16)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ordered = _ordered_block(context, builder, signature.args[0], arguments[0], arguments[1])
        above = builder.sub(ordered, _splat(builder, arguments[2], ordered.type))
        inside = builder.icmp_unsigned("<=", above, _splat(builder, arguments[3], ordered.type))
        return builder.bitcast(inside, ir.IntType(BLOCK))

    return signature, generate


@_typed_intrinsic
def _differ_mask(typing_context: Any, values: Any, a: Any, b: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(16), BLOCK)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        blocks = [
            builder.load(builder.bitcast(builder.gep(data, [start]), vector.as_pointer()), align=2)
            for start in arguments[1:]
        ]
        return builder.bitcast(builder.icmp_unsigned("!=", *blocks), ir.IntType(BLOCK))

    return types.uint64(values, types.intp, types.intp), generate


@_typed_intrinsic
def _trailing_zeros(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@_typed_intrinsic
def _count_ones(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@_typed_intrinsic
def _as_float32(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@_typed_intrinsic
def _as_bits(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@inlined_kernel
def as_bits(value: np.float32) -> np.int32:
    """The bits of a float32 as an int32: with the sign of the value, and below 0 for -0."""
    bits: np.int32 = _as_bits(value)
    return bits


@inlined_kernel
def trailing_zeros(bits: np.uint64) -> int:
    """Position of the lowest set bit of a non-zero uint64."""
    position: int = _trailing_zeros(bits)
    return position


@inlined_kernel
def count_ones(bits: np.uint64) -> int:
    """Number of set bits of a uint64."""
    ones: int = _count_ones(bits)
    return ones


@inlined_kernel
def block_mask(raw: NDArray[np.uint16], start: int, stop: int, low: int, high: int) -> np.uint64:
    """Which of the values raw[start:stop] (at most 64) lie in low <= ordered pattern <= high, as bits.

    raw: one-dimensional, the bits of float16 values; low <= high. -0 has the pattern 0x7FFF here.
    """
    size = stop - start
    if start + 64 <= raw.size:
        bits: np.uint64 = _block_mask(raw, start, np.uint16(low), np.uint16(high - low))
        if size < 64:
            bits &= (np.uint64(1) << np.uint64(size)) - np.uint64(1)
        return bits
    bits = np.uint64(0)
    for i in range(size):
        value = np.int64(raw[start + i])
        pattern = value ^ 0xFFFF if value & 0x8000 else value | 0x8000
        if low <= pattern <= high:
            bits |= np.uint64(1) << np.uint64(i)
    return bits


@inlined_kernel
def differ_mask(values: NDArray[np.uint16], a: int, b: int, size: int) -> np.uint64:
    """Where values[a:a + size] and values[b:b + size] differ, as bits; size at most 64."""
    if max(a, b) + 64 <= values.size:
        bits: np.uint64 = _differ_mask(values, a, b)
        if size < 64:
            bits &= (np.uint64(1) << np.uint64(size)) - np.uint64(1)
        return bits
    bits = np.uint64(0)
    for i in range(size):
        if values[a + i] != values[b + i]:
            bits |= np.uint64(1) << np.uint64(i)
    return bits


@inlined_kernel
def half_to_float(raw: np.uint16) -> np.float32:
    """The float32 equal to the float16 with bits `raw` (uint16); every value, NaN and infinity included."""
    magnitude = np.uint32(raw & 0x7FFF)
    shifted = np.uint32((magnitude << 13) + 0x38000000)
    if magnitude >= 0x7C00:
        shifted = np.uint32(shifted + 0x38000000)
    value: np.float32 = _as_float32(shifted)
    if magnitude < 0x0400:
        value = np.float32(np.int32(magnitude)) * np.float32(2.0**-24)
    return np.float32(-value) if raw & 0x8000 else np.float32(value)
