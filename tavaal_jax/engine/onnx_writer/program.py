"""ONNX programs: a function of JAX as a graph of standard operators, for runtimes without JAX.

The function's jaxpr is walked, and each primitive becomes what `primitives` has for it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax import export
from jax.extend import core
from onnx import helper

from tavaal_jax import models
from tavaal_jax.engine.onnx_writer import primitives
from tavaal_jax.engine.onnx_writer.graph import OPSET, Graph, Value, stored, type_code

INPUT, OUTPUT = "images", "probabilities"
"""Names of a file's input and output."""
_IR = 8  # The file format of the operators' version.


def onnx_program(
    function: Callable[[jax.Array], jax.Array],
    shape: tuple[int, ...],
    dtype: str,
    facts: Mapping[str, object],
) -> bytes:
    """Writes `function`, of any number of images or features `[b, *shape]`, as an ONNX file.

    `facts` are the file's metadata, in JSON. Raises UserError, one line, for a primitive that is
    not known, and for constants of more than 2 GB, a file's limit.
    """
    (count,) = export.symbolic_shape("b")
    with models.portable(True):
        closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((count, *shape), dtype))
    graph = Graph(INPUT, count)
    (found,) = _walk(graph, closed.jaxpr, closed.consts, [Value.of(INPUT, (count, *shape))])
    graph.nodes.append(helper.make_node("Identity", [graph.name(graph.full(found))], [OUTPUT]))
    infos = [_info(INPUT, closed.in_avals[0])], [_info(OUTPUT, closed.out_avals[0])]
    made = helper.make_graph(graph.nodes, "tavaal_jax", *infos, graph.initialisers())
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(
        made, producer_name="tavaal_jax", ir_version=_IR, opset_imports=[opset]
    )
    helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    content = bytes(model.SerializeToString())
    onnx.checker.check_model(content, full_check=True)
    return content


def _info(name: str, aval: Any) -> onnx.ValueInfoProto:
    shape = [n if isinstance(n, int) else str(n) for n in aval.shape]
    return helper.make_tensor_value_info(name, type_code(aval.dtype), shape)


_INNER = {
    "jit": "jaxpr", "remat2": "jaxpr", "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr",
}  # fmt: skip
"""Primitives that call a jaxpr, and where they have it."""


def _walk(
    graph: Graph, jaxpr: core.Jaxpr, constants: Sequence[Any], given: Sequence[Value]
) -> list[Value]:
    """Adds the nodes that a jaxpr's outputs depend on, and returns these."""
    values = dict(zip(jaxpr.invars, given, strict=True))
    for var, constant in zip(jaxpr.constvars, constants, strict=True):
        values[var] = _constant(constant, var.aval)

    def read(atom: Any) -> Value:
        return _constant(atom.val, atom.aval) if isinstance(atom, core.Literal) else values[atom]

    for equation in _needed(jaxpr):
        name, params = equation.primitive.name, equation.params
        inputs = [read(atom) for atom in equation.invars]
        if name in _INNER:
            inner = params[_INNER[name]]
            is_closed = isinstance(inner, core.ClosedJaxpr)
            plain, consts = (inner.jaxpr, inner.consts) if is_closed else (inner, ())
            found = _walk(graph, plain, consts, inputs)
        else:
            found = primitives.lowered(graph, name, params, equation.outvars[0].aval, inputs)
        values.update(zip(equation.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _constant(given: Any, aval: Any) -> Value:
    return Value.of(np.asarray(given).astype(stored(aval.dtype), copy=False), aval.shape)


def _needed(jaxpr: core.Jaxpr) -> list[core.JaxprEqn]:
    """The equations that the outputs depend on: taps of a network, for one, are not wanted."""
    variables = lambda atoms: {atom for atom in atoms if not isinstance(atom, core.Literal)}
    wanted, kept = variables(jaxpr.outvars), []
    for equation in reversed(jaxpr.eqns):
        if not wanted.isdisjoint(equation.outvars):
            kept.append(equation)
            wanted |= variables(equation.invars)
    return kept[::-1]
