"""One pass over a plane in vector registers: extremes, sum and sum of squares of float16 values.

Numba has no float16 on the CPU and does not vectorise floating-point sums in a fixed way, so the loop is written as
LLVM instructions here, 32 values a step; LLVM turns it into whatever the machine has. The order of additions is
fixed by the code: the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from microtome.dissect.maths.jit import inlined_kernel

COLUMNS = 16
"""Pixels of a row that `row_mask` decides at once."""

STEP = 32
"""Values a step; `scan_plane` reads up to STEP - 1 values past the plane."""


def _typed_intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    return cast(Callable[..., Any], intrinsic(function))


_alloca = cast(Callable[..., Any], cgutils.alloca_once_value)
_tuple = cast(Callable[..., Any], types.Tuple)


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    vector = ir.VectorType(value.type, lanes)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), zeros)


def _constant(element: Any, value: Any, lanes: int) -> Any:
    return ir.Constant(ir.VectorType(element, lanes), [value] * lanes)


def _keys(builder: Any, raw: Any, lanes: int) -> Any:
    """int16 that sort like the float16 values with these bits."""
    short = ir.IntType(16)
    sign = builder.ashr(raw, _constant(short, 15, lanes))
    return builder.xor(raw, builder.and_(sign, _constant(short, 0x7FFF, lanes)))


def _floats(builder: Any, raw: Any, lanes: int) -> Any:
    """float32 values of finite float16 bits. Integer instructions: no machine lacks them, no rounding mode matters."""
    word, single = ir.IntType(32), ir.FloatType()
    wide = builder.zext(raw, ir.VectorType(word, lanes))
    magnitude = builder.and_(wide, _constant(word, 0x7FFF, lanes))
    shifted = builder.add(builder.shl(magnitude, _constant(word, 13, lanes)), _constant(word, 0x38000000, lanes))
    normal = builder.bitcast(shifted, ir.VectorType(single, lanes))
    small = builder.fmul(builder.sitofp(magnitude, ir.VectorType(single, lanes)), _constant(single, 2.0**-24, lanes))
    is_small = builder.icmp_unsigned("<", magnitude, _constant(word, 0x0400, lanes))
    value = builder.bitcast(builder.select(is_small, small, normal), ir.VectorType(word, lanes))
    sign = builder.shl(builder.lshr(wide, _constant(word, 15, lanes)), _constant(word, 31, lanes))
    return builder.bitcast(builder.or_(value, sign), ir.VectorType(single, lanes))


def _halve(builder: Any, value: Any, lanes: int, combine: Callable[[Any, Any], Any]) -> Any:
    """One value from a vector, by combining its halves again and again."""
    undefined = ir.Constant(ir.VectorType(value.type.element, lanes), ir.Undefined)
    while lanes > 1:
        half = lanes // 2
        indices = ir.VectorType(ir.IntType(32), half)
        lower = builder.shuffle_vector(value, undefined, ir.Constant(indices, list(range(half))))
        upper = builder.shuffle_vector(value, undefined, ir.Constant(indices, list(range(half, lanes))))
        value = combine(lower, upper)
        lanes = half
        undefined = ir.Constant(value.type, ir.Undefined)
    return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))


class _Scan:
    """The instructions of `scan_plane`; `add_block` is one step of its loop."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.builder = builder
        array, start, self.size = arguments
        self.data = builder.gep(context.make_array(signature.args[0])(context, builder, array).data, [start])
        short, lanes = ir.IntType(16), STEP
        self.low = self._variable(_constant(short, 0x7FFF, lanes))
        self.high = self._variable(_constant(short, 0x8000 - 0x10000, lanes))
        self.total = self._variable(_constant(ir.DoubleType(), 0.0, lanes))
        self.squares = self._variable(_constant(ir.DoubleType(), 0.0, lanes))
        self.first = _splat(builder, builder.load(self.data), lanes)

    def _variable(self, value: Any) -> Any:
        return _alloca(self.builder, value)

    def add_block(self, block: Any, sums: bool) -> None:
        builder, lanes = self.builder, STEP
        at = builder.mul(block, ir.Constant(block.type, lanes))
        pointer = builder.bitcast(builder.gep(self.data, [at]), ir.VectorType(ir.IntType(16), lanes).as_pointer())
        raw = builder.load(pointer, align=2)
        left = builder.trunc(builder.sub(self.size, at), ir.IntType(32))
        capped = builder.select(
            builder.icmp_signed("<", left, ir.Constant(left.type, lanes)), left, ir.Constant(left.type, lanes)
        )
        numbers = ir.Constant(ir.VectorType(ir.IntType(16), lanes), list(range(lanes)))
        inside = builder.icmp_unsigned("<", numbers, _splat(builder, builder.trunc(capped, ir.IntType(16)), lanes))
        keys = _keys(builder, builder.select(inside, raw, self.first), lanes)
        for variable, order in ((self.low, "<"), (self.high, ">")):
            best = builder.load(variable)
            builder.store(builder.select(builder.icmp_signed(order, keys, best), keys, best), variable)
        if not sums:
            return
        kept = builder.select(inside, raw, _constant(ir.IntType(16), 0, lanes))
        values = _floats(builder, kept, lanes)
        double = ir.VectorType(ir.DoubleType(), lanes)
        for variable, terms in ((self.total, values), (self.squares, builder.fmul(values, values))):
            builder.store(builder.fadd(builder.load(variable), builder.fpext(terms, double)), variable)

    def results(self, sums: bool) -> list[Any]:
        builder = self.builder
        ends = []
        for variable, order in ((self.low, "<"), (self.high, ">")):

            def pick(a: Any, b: Any, order: str = order) -> Any:
                return builder.select(builder.icmp_signed(order, a, b), a, b)

            key = builder.sext(_halve(builder, builder.load(variable), STEP, pick), ir.IntType(64))
            ends.append(builder.add(key, ir.Constant(ir.IntType(64), 0x8000)))
        if not sums:
            return ends
        return ends + [
            _halve(builder, builder.load(variable), STEP, builder.fadd) for variable in (self.total, self.squares)
        ]


def _scan_code(sums: bool) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        scan = _Scan(context, builder, signature, arguments)
        size = scan.size
        blocks = builder.sdiv(builder.add(size, ir.Constant(size.type, STEP - 1)), ir.Constant(size.type, STEP))
        with cgutils.for_range(builder, blocks) as loop:
            scan.add_block(loop.index, sums)
        return context.make_tuple(builder, signature.return_type, scan.results(sums))

    return generate


@_typed_intrinsic
def scan_plane(typing_context: Any, raw: Any, start: Any, size: Any) -> Any:
    """Of raw[start:start + size], size >= 1: lowest and highest ordered pattern (-0 not folded), sum, sum of squares.

    raw: the bits of float16 values, at least start + size + STEP - 1 of them. The sums mean nothing where a value is
    not finite (the extremes show it). Sums are exact for up to 8,192 values.
    """
    result = _tuple((types.int64, types.int64, types.float64, types.float64))
    return result(raw, types.intp, types.intp), _scan_code(True)


@_typed_intrinsic
def scan_extremes(typing_context: Any, raw: Any, start: Any, size: Any) -> Any:
    """The first two results of `scan_plane`."""
    return _tuple((types.int64, types.int64))(raw, types.intp, types.intp), _scan_code(False)


@_typed_intrinsic
def _row_mask(typing_context: Any, upper: Any, lower: Any, offset: Any, share: Any, threshold: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), COLUMNS)
        ends = []
        for array_type, array in zip(signature.args[:2], arguments[:2], strict=True):
            data = context.make_array(array_type)(context, builder, array).data
            pointer = builder.bitcast(builder.gep(data, [arguments[2]]), vector.as_pointer())
            ends.append(builder.load(pointer, align=4))
        shares = _splat(builder, arguments[3], COLUMNS)
        values = builder.fadd(ends[0], builder.fmul(shares, builder.fsub(ends[1], ends[0])))
        alone = builder.fcmp_ordered("==", arguments[3], ir.Constant(ir.FloatType(), 0.0))
        values = builder.select(alone, ends[0], values)
        above = builder.fcmp_ordered(">", values, _splat(builder, arguments[4], COLUMNS))
        return builder.zext(builder.bitcast(above, ir.IntType(COLUMNS)), ir.IntType(64))

    return types.uint64(upper, lower, types.intp, types.float32, types.float32), generate


@inlined_kernel
def row_mask(
    upper: NDArray[np.float32], lower: NDArray[np.float32], offset: int, share: float, threshold: float
) -> np.uint64:
    """Bits of upper + share * (lower - upper) > threshold for 16 values from `offset` on; upper alone at share 0."""
    bits: np.uint64 = _row_mask(upper, lower, offset, np.float32(share), np.float32(threshold))
    return bits


@_typed_intrinsic
def _spread(typing_context: Any, out: Any, offset: Any, a: Any, b: Any, shares: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), COLUMNS)

        def place(index: int) -> Any:
            data = context.make_array(signature.args[index])(context, builder, arguments[index]).data
            return builder.bitcast(builder.gep(data, [arguments[index + 1]]), vector.as_pointer())

        share = builder.load(place(4), align=4)
        first = _splat(builder, arguments[2], COLUMNS)
        step = _splat(builder, builder.fsub(arguments[3], arguments[2]), COLUMNS)
        values = builder.fadd(first, builder.fmul(share, step))
        alone = builder.fcmp_ordered("==", share, ir.Constant(vector, [0.0] * COLUMNS))
        builder.store(builder.select(alone, first, values), place(0), align=4)
        return context.get_dummy_value()

    return types.void(out, types.intp, types.float32, types.float32, shares, types.intp), generate


@inlined_kernel
def spread(
    out: NDArray[np.float32], offset: int, a: np.float32, b: np.float32, shares: NDArray[np.float32], at: int
) -> None:
    """out[offset + i] = a + shares[at + i] * (b - a), a alone at share 0, for i < 16."""
    _spread(out, offset, np.float32(a), np.float32(b), shares, at)
