"""JAX's primitives as ONNX operators: those that networks need for inference."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tavaal_jax.engine.onnx_writer.graph import (
    Data,
    Graph,
    Shape,
    Value,
    integers,
    stored,
    type_code,
    unknown,
)

_Params = Mapping[str, Any]


def lowered(
    graph: Graph, name: str, params: _Params, out: Any, inputs: Sequence[Value]
) -> list[Value]:
    """Outputs of a primitive, of which the first is of the type `out`.

    Raises UserError for a primitive that is not known.
    """
    if name in _ELEMENTWISE:
        return [_elementwise(graph, _ELEMENTWISE[name], params, out.shape, inputs)]
    if name not in _OTHERS:
        raise unknown(f"{name}, a primitive of JAX's")
    found = _OTHERS[name](graph, params, out, *inputs)
    outputs = found if isinstance(found, list) else [found]
    return [one if isinstance(one, Value) else Value.of(one, out.shape) for one in outputs]


# Of single numbers: `(graph, parameters, *data) -> data`


def _elementwise(
    graph: Graph, make: Callable[..., Data], params: _Params, shape: Shape, inputs: Sequence[Value]
) -> Value:
    """Applies an entry of `_ELEMENTWISE` to inputs of one rank, or single numbers.

    All have the order of axes of the first that is not a constant.
    """
    wide = [x for x in inputs if len(x.shape) == len(shape)]
    order = next((x.order for x in wide if isinstance(x.data, str)), wide[0].order)
    data = [graph.ordered(x, order) if len(x.shape) == len(shape) else x.data for x in inputs]
    held = zip(*(x.held for x in wide), strict=True)
    lengths = tuple(next((n for n in axis if n != 1), 1) for axis in held)
    return Value(make(graph, params, *data), shape, lengths, order)


def _with(*operators: str) -> Callable[..., Data]:
    """Operators one after the other."""

    def apply(graph: Graph, params: _Params, *inputs: Data) -> Data:
        found = graph.node(operators[0], *inputs)
        for operator in operators[1:]:
            found = graph.node(operator, found)
        return found

    return apply


def _number(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


def _is_number(x: Data) -> bool:
    return isinstance(x, np.ndarray) and x.ndim == 0 and x.dtype == np.float32


# Runtimes make one operator of a convolution and a Relu, Clip, Add or Mul that follow it.


def _max(graph: Graph, params: _Params, x: Data, y: Data) -> Data:
    x, y = (y, x) if _is_number(x) else (x, y)
    return graph.node("Relu", x) if _is_number(y) and y == 0 else graph.node("Max", x, y)


def _min(graph: Graph, params: _Params, x: Data, y: Data) -> Data:
    x, y = (y, x) if _is_number(x) else (x, y)
    is_clip = _is_number(y) and isinstance(x, str)
    return graph.node("Clip", x, None, y) if is_clip else graph.node("Min", x, y)


def _sub(graph: Graph, params: _Params, x: Data, y: Data) -> Data:
    is_sum = isinstance(y, np.ndarray) and y.dtype == np.float32
    return graph.node("Add", x, graph.node("Neg", y)) if is_sum else graph.node("Sub", x, y)


def _cast(graph: Graph, params: _Params, x: Data) -> Data:
    return graph.node("Cast", x, to=type_code(params["new_dtype"]))


_ELEMENTWISE: dict[str, Callable[..., Data]] = {
    "add": _with("Add"), "sub": _sub, "mul": _with("Mul"), "div": _with("Div"), "max": _max,
    "min": _min, "pow": _with("Pow"), "neg": _with("Neg"), "abs": _with("Abs"),
    "sign": _with("Sign"), "floor": _with("Floor"), "ceil": _with("Ceil"), "exp": _with("Exp"),
    "log": _with("Log"), "tanh": _with("Tanh"), "logistic": _with("Sigmoid"), "erf": _with("Erf"),
    "sqrt": _with("Sqrt"), "rsqrt": _with("Sqrt", "Reciprocal"), "sin": _with("Sin"),
    "cos": _with("Cos"), "eq": _with("Equal"), "ne": _with("Equal", "Not"), "lt": _with("Less"),
    "le": _with("LessOrEqual"), "gt": _with("Greater"), "ge": _with("GreaterOrEqual"),
    "and": _with("And"), "or": _with("Or"), "not": _with("Not"),
    "erfc": lambda g, params, x: g.node("Sub", _number(1), g.node("Erf", x)),
    "log1p": lambda g, params, x: g.node("Log", g.node("Add", x, _number(1))),
    "expm1": lambda g, params, x: g.node("Sub", g.node("Exp", x), _number(1)),
    "square": lambda g, params, x: g.node("Mul", x, x),
    "integer_pow": lambda g, params, x: g.node("Pow", x, _number(params["y"])),
    "select_n": lambda g, params, which, no, yes: g.node("Where", which, yes, no),
    "clamp": lambda g, params, low, x, high: _min(g, params, _max(g, params, x, low), high),
    "convert_element_type": _cast,
    "stop_gradient": lambda g, params, x: x, "copy": lambda g, params, x: x,
}  # fmt: skip


# Of axes: `(graph, parameters, type of the output, *inputs)`; data alone are whole and in order


def _broadcast(graph: Graph, params: _Params, out: Any, x: Value) -> Value:
    axes = dict(zip(params["broadcast_dimensions"], x.held, strict=True))
    new = [axis for axis in range(len(out.shape)) if axis not in axes]
    data = graph.ordered(x)
    data = graph.node("Unsqueeze", data, integers(new)) if new else data
    return Value.of(data, out.shape, [axes.get(axis, 1) for axis in range(len(out.shape))])


def _reshape(graph: Graph, params: _Params, out: Any, x: Value) -> Data:
    lengths = [n if isinstance(n, int) else -1 for n in out.shape]
    if lengths.count(-1) > 1:
        raise unknown(f"a reshape to {out.shape}")
    return graph.node("Reshape", graph.full(x), integers(lengths))


def _transpose(graph: Graph, params: _Params, out: Any, x: Value) -> Data:
    return graph.full(x, params["permutation"])


def _concatenate(graph: Graph, params: _Params, out: Any, *inputs: Value) -> Data:
    return graph.node("Concat", *map(graph.full, inputs), axis=params["dimension"])


def _squeeze(graph: Graph, params: _Params, out: Any, x: Value) -> Data:
    axes = params["dimensions"]
    return graph.node("Squeeze", graph.full(x), integers(axes)) if axes else graph.full(x)


def _pad(graph: Graph, params: _Params, out: Any, x: Value, filling: Value) -> Value:
    pads = [params["padding_config"][axis] for axis in x.order]
    low, high, within = zip(*pads, strict=True)
    if min(*low, *high) < 0 or any(within):
        raise unknown("negative or interior padding")
    data = graph.node("Pad", graph.full(x, x.order), integers([*low, *high]), filling.data)
    return Value(data, out.shape, out.shape, x.order)


def _cut(
    graph: Graph, x: Value, starts: Sequence[Any], ends: Sequence[Any], steps: Sequence[int]
) -> Value:
    """`x[starts:ends:steps]`"""
    every = enumerate(zip(starts, ends, steps, strict=True))
    cuts = {axis: cut for axis, cut in every if cut != (0, x.shape[axis], 1)}
    if not all(isinstance(x.shape[axis], int) for axis in cuts):
        raise unknown("a part of the images")
    lengths = {axis: -(-(end - start) // step) for axis, (start, end, step) in cuts.items()}
    shape = tuple(lengths.get(axis, n) for axis, n in enumerate(x.shape))
    data, places = graph.full(x, x.order), [x.order.index(axis) for axis in cuts]
    if cuts:
        first, last, step = zip(*cuts.values(), strict=True)
        data = graph.node("Slice", data, *map(integers, (first, last, places, step)))
    return Value(data, shape, shape, x.order)


def _slice(graph: Graph, params: _Params, out: Any, x: Value) -> Value:
    steps = params["strides"] or (1,) * len(x.shape)
    return _cut(graph, x, params["start_indices"], params["limit_indices"], steps)


def _split(graph: Graph, params: _Params, out: Any, x: Value) -> list[Value]:
    axis, parts, begin = params["axis"], [], 0
    for size in params["sizes"]:
        starts, ends = [0] * len(x.shape), list(x.shape)
        starts[axis], ends[axis] = begin, begin + int(size)
        begin = ends[axis]
        parts.append(_cut(graph, x, starts, ends, (1,) * len(x.shape)))
    return parts


def _unstack(graph: Graph, params: _Params, out: Any, x: Value) -> list[Data]:
    axis = params["axis"]
    parts = _split(graph, {"axis": axis, "sizes": [1] * x.shape[axis]}, out, x)
    return [_squeeze(graph, {"dimensions": [axis]}, out, part) for part in parts]


def _gather(graph: Graph, params: _Params, out: Any, x: Value, indices: Value) -> Data:
    """One part of an array, at a place that is known: JAX's indexing by constants."""
    numbers, place = params["dimension_numbers"], indices.data
    if not isinstance(place, np.ndarray) or place.ndim != 1:
        raise unknown("a gather by more than one index")
    starts = [0] * len(x.shape)
    for axis, start in zip(numbers.start_index_map, place.tolist(), strict=True):
        starts[axis] = start
    ends = [start + size for start, size in zip(starts, params["slice_sizes"], strict=True)]
    if any(not 0 <= starts[a] <= ends[a] <= x.shape[a] for a in numbers.start_index_map):
        raise unknown("a gather beyond the edge")
    part = _cut(graph, x, starts, ends, (1,) * len(x.shape))
    return _squeeze(graph, {"dimensions": numbers.collapsed_slice_dims}, out, part)


def _iota(graph: Graph, params: _Params, out: Any) -> Value:
    axis = params["dimension"]
    held = [n if i == axis else 1 for i, n in enumerate(out.shape)]
    if not isinstance(held[axis], int):
        raise unknown(f"numbers up to {held[axis]}")
    return Value.of(np.arange(held[axis], dtype=stored(out.dtype)).reshape(held), out.shape, held)


# Sums and products


def _reduce(operator: str) -> Callable[..., Value]:
    def apply(graph: Graph, params: _Params, out: Any, x: Value) -> Value:
        if not params["axes"]:
            return x  # In ONNX none of the axes means all of them.
        axes = integers([x.order.index(axis) for axis in params["axes"]])
        data = graph.node(operator, graph.full(x, x.order), axes, keepdims=0)
        left = [axis for axis in x.order if axis not in params["axes"]]
        order = tuple(sorted(left).index(axis) for axis in left)
        return Value(data, out.shape, out.shape, order)

    return apply


def _argmax(graph: Graph, params: _Params, out: Any, x: Value) -> Data:
    data = graph.node("ArgMax", graph.full(x), axis=params["axes"][0], keepdims=0)
    return graph.node("Cast", data, to=type_code(out.dtype))


def _dot(graph: Graph, params: _Params, out: Any, x: Value, y: Value) -> Data:
    """A product of matrices, if batch, free and summed axes are few enough, else an Einsum."""
    (x_sum, y_sum), (x_batch, y_batch) = params["dimension_numbers"]
    x_free = [axis for axis in range(len(x.shape)) if axis not in (*x_sum, *x_batch)]
    y_free = [axis for axis in range(len(y.shape)) if axis not in (*y_sum, *y_batch)]
    left = graph.full(x, (*x_batch, *x_free, *x_sum))
    right = graph.full(y, (*y_batch, *y_sum, *y_free))
    if len(x_sum) == len(y_free) == 1 and (len(x_free) == 1 or (x_free and not x_batch)):
        return graph.node("MatMul", left, right)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    batch, free, summed, others = (
        "".join(next(letters) for _ in axes) for axes in (x_batch, x_free, x_sum, y_free)
    )
    equation = f"{batch}{free}{summed},{batch}{summed}{others}->{batch}{free}{others}"
    return graph.node("Einsum", left, right, equation=equation)


def _conv(graph: Graph, params: _Params, out: Any, images: Value, kernel: Value) -> Value:
    numbers, (low, high) = params["dimension_numbers"], zip(*params["padding"], strict=True)
    is_plain = set(params["lhs_dilation"]) == {1} and params["batch_group_count"] == 1
    if not is_plain or min(*low, *high) < 0:
        raise unknown("a transposed or cropped convolution")
    data = graph.node(
        "Conv", graph.full(images, numbers.lhs_spec), graph.full(kernel, numbers.rhs_spec),
        strides=params["window_strides"], dilations=params["rhs_dilation"],
        pads=integers([*low, *high]).tolist(), group=params["feature_group_count"],
    )  # fmt: skip
    return Value(data, out.shape, out.shape, tuple(numbers.out_spec))


_OTHERS: dict[str, Callable[..., Value | Data | list[Value] | list[Data]]] = {
    "broadcast_in_dim": _broadcast, "reshape": _reshape, "squeeze": _squeeze,
    "transpose": _transpose, "concatenate": _concatenate, "pad": _pad, "slice": _slice,
    "split": _split, "unstack": _unstack, "gather": _gather, "iota": _iota, "argmax": _argmax,
    "dot_general": _dot, "conv_general_dilated": _conv, "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"), "reduce_min": _reduce("ReduceMin"),
}  # fmt: skip
