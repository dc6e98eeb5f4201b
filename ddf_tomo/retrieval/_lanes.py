"""Loops along rows in vector registers, for kernels compiled by numba: plain arithmetic, traced once.

numba looks at every operation of a kernel for milliseconds, and its compiler then searches loops for what fits into
vector registers. A `lanewise` body is traced by Python instead, with symbols for its numbers, and becomes vector
instructions at once: it compiles in hundredths of a second, lists and loops in it are unrolled, and what it does not
store stays in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BYTES, MOST = 32, 8  # of a vector, and numbers in it
BYTE, LANE = ir.IntType(8), ir.IntType(32)


def lanewise(body: Callable[..., None]) -> Any:
    """For compiled code, ``call(count, *arguments)``: ``body(c, *arguments)`` for all ``c`` below ``count``.

    The count is a multiple of `MOST`, or as good as one: rows have room for so many.

    The body sees arrays, to be indexed by integers and at last by ``c`` plus integers (their last axis is contiguous),
    numbers of an array where the last index is an integer too, and scalars. What one c writes no other may read.
    """

    def typed(typing_context: Any, count: Any, *arguments: Any) -> Any:
        kind = next(each.dtype for each in arguments if isinstance(each, types.Array))

        def generate(context: Any, builder: Any, types_of_call: Any, values: Any) -> Any:
            number = context.get_value_type(kind)
            lanes = BYTES // context.get_abi_sizeof(number)
            given = [
                context.make_array(each)(context, builder, value) if isinstance(each, types.Array) else value
                for each, value in zip(arguments, values[1:], strict=True)
            ]
            stop, before = values[0], builder.basic_block
            first, step = (ir.Constant(stop.type, n) for n in (0, lanes))
            with cgutils.for_range_slice(builder, first, stop, step, intp=stop.type) as (index, _):
                loop = _Loop(context, builder, before, number, lanes, index)
                body(Integer(loop, (), 0, True), *map(loop.symbol, arguments, given))
            return context.get_dummy_value()

        return types.void(count, *arguments), generate

    own = signature(body)
    first = Parameter("typing_context", Parameter.POSITIONAL_OR_KEYWORD)
    typed.__name__, typed.__doc__ = body.__name__, body.__doc__
    typed.__dict__["__signature__"] = own.replace(parameters=[first, *own.parameters.values()])
    return intrinsic(typed)


class _Loop:
    """Where instructions go: to the loop, or in front of it."""

    def __init__(self, context: Any, builder: Any, before: Any, number: Any, lanes: int, index: Any) -> None:
        self.context, self.builder, self.before, self.index = context, builder, before, index
        self.number, self.lanes = number, lanes
        self.known: dict[Any, Any] = {}

    def vector(self, kind: Any) -> Any:
        return ir.VectorType(kind, self.lanes)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """A value made in front of the loop, when it is first asked for."""
        if key not in self.known:
            with self.builder.goto_block(self.before):
                self.known[key] = make()
        return self.known[key]

    def symbol(self, kind: Any, value: Any) -> Any:
        if isinstance(kind, types.Array):
            return Rows(self, kind, value)
        if isinstance(kind, types.Float):
            return Number(self, self.once(value, lambda: self.spread(self.cast(value))))
        return Integer(self, (value,), 0, False)

    def cast(self, value: Any) -> Any:
        if value.type == self.number:
            return value
        return self.builder.fptrunc(value, self.number) if self.number == ir.FloatType() else value

    def spread(self, scalar: Any) -> Any:
        undefined = ir.Constant(self.vector(scalar.type), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(LANE, 0))
        return self.builder.shuffle_vector(first, undefined, self.places([0] * self.lanes))

    def places(self, order: list[int]) -> Any:
        return ir.Constant(ir.VectorType(LANE, len(order)), order)

    def value(self, given: Any) -> Any:
        """Of a number, or a constant."""
        if isinstance(given, Number):
            return given.value
        vector = self.vector(self.number)
        return ir.Constant(vector, [float(given)] * self.lanes)


class Integer:
    """A sum of integers that compiled code passes, and of ``c``."""

    def __init__(self, loop: _Loop, parts: tuple[Any, ...], rest: int, column: bool) -> None:
        self.loop, self.parts, self.rest, self.column = loop, parts, rest, column

    def __add__(self, other: Any) -> Integer:
        if isinstance(other, int):
            return Integer(self.loop, self.parts, self.rest + other, self.column)
        return Integer(self.loop, self.parts + other.parts, self.rest + other.rest, self.column or other.column)

    __radd__ = __add__

    def __sub__(self, other: int) -> Integer:
        return self + -other

    def __index__(self) -> int:
        raise TypeError("a number that only compiled code knows")


class Rows:
    """An array of numbers, or of truths."""

    def __init__(self, loop: _Loop, kind: Any, value: Any) -> None:
        self.loop, self.truths = loop, isinstance(kind.dtype, types.Boolean)
        self.array, self.bytes = value, loop.context.get_abi_sizeof(loop.context.get_data_type(kind.dtype))

    def _address(self, index: Any, flat: bool = False, scale: int = 1) -> Any:
        loop, index = self.loop, index if isinstance(index, tuple) else (index,)
        builder = loop.builder
        items = [each if isinstance(each, Integer) else Integer(loop, (), int(each), False) for each in index]

        def base() -> Any:
            strides = [] if flat else cgutils.unpack_tuple(builder, self.array.strides)[: len(items) - 1]
            steps = [*strides, ir.Constant(loop.index.type, self.bytes)]
            total = ir.Constant(loop.index.type, 0)
            for item, step in zip(items, steps, strict=True):
                here = ir.Constant(loop.index.type, item.rest)
                for part in item.parts:
                    here = builder.add(here, part)
                total = builder.add(total, builder.mul(here, step))
            return builder.gep(builder.bitcast(self.array.data, BYTE.as_pointer()), [total])

        start = loop.once((self.array, flat, *((each.parts, each.rest) for each in items)), base)
        if not items[-1].column:
            return start, False
        offset = builder.mul(loop.index, ir.Constant(loop.index.type, self.bytes * scale))
        return builder.gep(start, [offset]), True

    def _load(self, address: Any, kind: Any) -> Any:
        builder = self.loop.builder
        return builder.load(builder.bitcast(address, kind.as_pointer()), align=self.bytes)

    def _get(self, index: Any, flat: bool = False) -> Any:
        loop, builder = self.loop, self.loop.builder
        address, column = self._address(index, flat)
        if not column:  # before the loop: nothing in it writes there
            with builder.goto_block(loop.before):
                return Number(loop, loop.spread(self._load(address, loop.number)))
        if self.truths:
            kind = loop.vector(BYTE)
            zero = ir.Constant(kind, [0] * loop.lanes)
            return Truth(loop, builder.icmp_unsigned("!=", self._load(address, kind), zero))
        return Number(loop, self._load(address, loop.vector(loop.number)))

    def _set(self, index: Any, value: Any, flat: bool = False) -> None:
        loop, builder = self.loop, self.loop.builder
        address, _ = self._address(index, flat)
        found = builder.zext(value.value, loop.vector(BYTE)) if isinstance(value, Truth) else loop.value(value)
        builder.store(found, builder.bitcast(address, found.type.as_pointer()), align=self.bytes)

    def __getitem__(self, index: Any) -> Any:
        return self._get(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._set(index, value)

    @property
    def flat(self) -> Flat:
        """The same numbers in one row."""
        return Flat(self)

    def halves(self, *index: Any) -> tuple[Number, Number]:
        """What is at ``2 c`` and at ``2 c + 1`` from this place on."""
        loop, builder = self.loop, self.loop.builder
        address, _ = self._address(index, scale=2)
        kind = loop.vector(loop.number)
        following = builder.gep(address, [ir.Constant(loop.index.type, self.bytes * loop.lanes)])
        one, two = self._load(address, kind), self._load(following, kind)
        even = [2 * n for n in range(loop.lanes)]
        orders = loop.places(even), loop.places([n + 1 for n in even])
        one, two = (Number(loop, builder.shuffle_vector(one, two, order)) for order in orders)
        return one, two

    def ahead(self, *index: Any, flat: bool = False) -> None:
        """Ask for the memory there, which may lie past the end."""
        builder = self.loop.builder
        address, _ = self._address(index, flat)
        kind = ir.FunctionType(ir.VoidType(), [address.type, *[LANE] * 3])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(ask, [address, *(ir.Constant(LANE, n) for n in (0, 3, 1))])  # to read, into all caches, data


class Flat:
    """An array as one row."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __getitem__(self, index: Any) -> Any:
        return self.rows._get(index, flat=True)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.rows._set(index, value, flat=True)

    def ahead(self, index: Any) -> None:
        """As `Rows.ahead`."""
        self.rows.ahead(index, flat=True)


class Truth:
    """Whether something holds, for each lane."""

    def __init__(self, loop: _Loop, value: Any) -> None:
        self.loop, self.value = loop, value

    def __and__(self, other: Truth) -> Truth:
        return Truth(self.loop, self.loop.builder.and_(self.value, other.value))


class Number:
    """A number for each lane."""

    def __init__(self, loop: _Loop, value: Any) -> None:
        self.loop, self.value = loop, value

    def _with(self, name: str, one: Any, two: Any) -> Number:
        operation = getattr(self.loop.builder, name)
        return Number(self.loop, operation(self.loop.value(one), self.loop.value(two), flags=("fast",)))

    def __add__(self, other: Any) -> Number:
        return self._with("fadd", self, other)

    def __sub__(self, other: Any) -> Number:
        return self._with("fsub", self, other)

    def __mul__(self, other: Any) -> Number:
        return self._with("fmul", self, other)

    def __truediv__(self, other: Any) -> Number:
        return self._with("fdiv", self, other)

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> Number:
        return self._with("fsub", other, self)

    def __rtruediv__(self, other: Any) -> Number:
        return self._with("fdiv", other, self)

    def __neg__(self) -> Number:
        return self._with("fsub", 0.0, self)

    def __gt__(self, other: Any) -> Truth:
        return Truth(self.loop, self.loop.builder.fcmp_ordered(">", self.value, self.loop.value(other)))


def where(truth: Truth, one: Any, other: Any) -> Number:
    """One of two numbers."""
    loop = truth.loop
    return Number(loop, loop.builder.select(truth.value, loop.value(one), loop.value(other)))


def least(one: Number, other: Any) -> Number:
    """The smaller of two numbers."""
    return where(one > other, other, one)


def root(number: Number) -> Number:
    """Square root."""
    loop = number.loop
    kind = number.value.type
    name = f"llvm.sqrt.v{loop.lanes}{loop.number.intrinsic_name}"
    function = cgutils.get_or_insert_function(loop.builder.module, ir.FunctionType(kind, [kind]), name)
    return Number(loop, loop.builder.call(function, [number.value], fastmath=("fast",)))
