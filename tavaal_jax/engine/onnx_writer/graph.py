"""A graph of ONNX operators that is being written; what depends on constants alone is computed."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tavaal_jax.errors import UserError

OPSET = 18
"""Version of the operators: ONNX 1.13 of 2022, so that older runtimes read them."""
_LIMIT = 2 * 10**9  # bytes

Shape = tuple[Any, ...]
"""Integers and, for what depends on the number of images, JAX's symbolic dimensions."""
Data = str | np.ndarray
"""Name of a node's output, or a constant."""


class Value(NamedTuple):
    """A value of a jaxpr in the graph, whose data may have other axes than the jaxpr's."""

    data: Data
    shape: Shape
    """In the jaxpr."""
    held: Shape
    """Likewise, but 1 along axes that operators shall repeat: broadcasting costs nothing then."""
    order: tuple[int, ...]
    """The jaxpr's axes as `data` has them: after a convolution NCHW, until others are needed."""

    @classmethod
    def of(cls, data: Data, shape: Sequence[Any], held: Sequence[Any] | None = None) -> Self:
        """A value whose axes are in the jaxpr's order."""
        held = shape if held is None else held
        return cls(data, tuple(shape), tuple(held), tuple(range(len(shape))))


def stored(dtype: Any) -> np.dtype[Any]:
    """The graph's type for one of the jaxpr's: float32 for every float."""
    return np.dtype(np.float32) if jax.dtypes.issubdtype(dtype, np.floating) else np.dtype(dtype)


def type_code(dtype: Any) -> int:
    """ONNX's number of the graph's type for one of the jaxpr's."""
    return helper.np_dtype_to_tensor_dtype(stored(dtype))


def integers(values: Sequence[Any]) -> np.ndarray:
    """A constant of axes, lengths or places, `[n]`."""
    return np.asarray([int(n) for n in values], np.int64)


def unknown(what: str) -> UserError:
    """The error for what has no ONNX operator here."""
    return UserError(
        f"the network has {what}, which cannot be written as ONNX here: use predict.jaxexport, or"
        " build the network without it"
    )


class Graph:
    """Nodes and constants so far, of a function of one input."""

    def __init__(self, source: str, count: Any):
        """`source` is the input's name and `count` its first dimension, as the jaxpr has it."""
        self.nodes: list[onnx.NodeProto] = []
        self._source, self._count = source, count
        self._constants: dict[int, tuple[str, np.ndarray]] = {}
        self._numbers = itertools.count()
        self._counted: Data | None = None

    def node(self, operator: str, *inputs: Data | None, **attributes: Any) -> Data:
        """Adds a node; of constants alone the result is a constant."""
        constants = [one for one in inputs if isinstance(one, np.ndarray)]
        if len(constants) == len(inputs):
            return _computed(operator, constants, attributes)
        output = f"{operator}_{next(self._numbers)}"
        names = ["" if one is None else self.name(one) for one in inputs]
        self.nodes.append(helper.make_node(operator, names, [output], name=output, **attributes))
        return output

    def name(self, data: Data) -> str:
        """The name of a value's data; a constant becomes one of the graph's."""
        if isinstance(data, str):
            return data
        new = f"constant_{len(self._constants)}", data
        return self._constants.setdefault(id(data), new)[0]

    def ordered(self, x: Value, order: Sequence[int] | None = None) -> Data:
        """A value's data with its axes in another order, by default the jaxpr's."""
        perm = [x.order.index(axis) for axis in (sorted(x.order) if order is None else order)]
        return x.data if perm == sorted(perm) else self.node("Transpose", x.data, perm=perm)

    def full(self, x: Value, order: Sequence[int] | None = None) -> Data:
        """Likewise, with every axis as long as it is."""
        data = self.ordered(x, order)
        if x.held == x.shape:
            return data
        axes = sorted(x.order) if order is None else order
        lengths = [x.shape[axis] if x.held[axis] != x.shape[axis] else 1 for axis in axes]
        if all(isinstance(n, int) for n in lengths):
            return self.node("Expand", data, integers(lengths))
        if any(not isinstance(n, int) and n != self._count for n in lengths):
            raise unknown(f"an array repeated to {x.shape}")
        if self._counted is None:
            self._counted = self.node("Shape", self._source, start=0, end=1)
        parts = [integers([n]) if isinstance(n, int) else self._counted for n in lengths]
        return self.node("Expand", data, self.node("Concat", *parts, axis=0))

    def initialisers(self) -> list[onnx.TensorProto]:
        """The constants; UserError where a file cannot hold them."""
        size = sum(array.nbytes for _, array in self._constants.values())
        if size > _LIMIT:
            raise UserError(
                f"the network has {size / 1e9:.1f} GB of weights, and an ONNX file holds 2 GB: use"
                " predict.jaxexport, or a smaller network"
            )
        return [numpy_helper.from_array(array, name) for name, array in self._constants.values()]


def _computed(operator: str, inputs: list[np.ndarray], attributes: dict[str, Any]) -> np.ndarray:
    names = [f"x{number}" for number in range(len(inputs))]
    node = helper.make_node(operator, names, ["y"], **attributes)
    opset = helper.make_opsetid("", OPSET)
    function = helper.make_function("tavaal_jax", "one", names, ["y"], [node], [opset])
    given = dict(zip(names, inputs, strict=True))
    results: Any = ReferenceEvaluator(function).run(None, given, {})
    return np.asarray(results[0])
