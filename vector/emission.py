"""Pieces of LLVM code that intrinsics are put together from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]

__all__ = ["declared", "everywhere", "loaded", "loop", "mixed"]

I32, I64 = ir.IntType(32), ir.IntType(64)


def declared(builder: Any, name: str, result: Any, parameters: list[Any]) -> Any:
    """A function of LLVM's, declared once a module."""
    found = builder.module.globals.get(name)
    return found or ir.Function(builder.module, ir.FunctionType(result, parameters), name)


def loaded(builder: Any, address: Any, kind: Any) -> Any:
    """What stands at an address, wherever that is."""
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = 1
    return value


def mixed(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    """Lanes of two vectors, those of the second counted on."""
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


def everywhere(builder: Any, value: Any, kind: Any) -> Any:
    """A vector of this kind with a value in every lane."""
    unknown = ir.Constant(kind, ir.Undefined)
    return mixed(builder, builder.insert_element(unknown, value, ir.Constant(I32, 0)), unknown, [0] * kind.count)


def loop(builder: Any, start: Any, stop: Any, values: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> Any:
    """Emit ``for at in range(start, stop): values = body(at, values)``; the values after it."""
    before = builder.block
    loop, end = (builder.function.append_basic_block(name) for name in ("sum.loop", "sum.end"))
    builder.cbranch(builder.icmp_signed("<", start, stop), loop, end)
    builder.position_at_end(loop)
    at, running = builder.phi(I64), [builder.phi(value.type) for value in values]
    at.add_incoming(start, before)
    for phi, value in zip(running, values, strict=True):
        phi.add_incoming(value, before)
    after = body(at, running)
    latch = builder.block  # a body may loop itself
    following = builder.add(at, ir.Constant(I64, 1))
    at.add_incoming(following, latch)
    for phi, value in zip(running, after, strict=True):
        phi.add_incoming(value, latch)
    builder.cbranch(builder.icmp_signed("<", following, stop), loop, end)
    builder.position_at_end(end)
    ended = []
    for value, result in zip(values, after, strict=True):
        phi = builder.phi(value.type)
        phi.add_incoming(value, before)
        phi.add_incoming(result, latch)
        ended.append(phi)
    return ended
