"""Devices: the only file that uses pmap and the name of the batch axis.

A step is written for one device's part of the batch and calls :func:`mean` on what the devices must
agree on. `in_axes` None is for what is replicated, such as the state. Everything returned is
replicated; training programs also return whether it is, for :func:`check_agreement`.
"""

import concurrent.futures
import itertools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import partial_eval
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tavaal_jax import jax_settings
from tavaal_jax.algorithm.optim import Metrics
from tavaal_jax.algorithm.state import Schedule
from tavaal_jax.data.plans import IndexPlan
from tavaal_jax.data.pool import take_rows

AXIS = "batch"
"""Name of the axis over which a batch is split, for collectives."""

Tree = TypeVar("Tree")
State = TypeVar("State")
Data = TypeVar("Data")
Variables = TypeVar("Variables")
Result = TypeVar("Result")
Item = TypeVar("Item")
Arguments = ParamSpec("Arguments")

Agreement = jax.Array | bool
"""Whether all devices hold the same bits, see :func:`check_agreement`."""
Step = Callable[[State, Data, jax.Array, Schedule, IndexPlan], tuple[State, Metrics]]
"""A training step `(state, data, key, schedule, plan) -> state, metrics` on a part of a batch."""
TrainProgram = Callable[
    [State, Data, jax.Array, Schedule, IndexPlan, int], tuple[State, Metrics, Agreement]
]
"""A loop of steps on all devices, see :func:`train_program`."""
MapProgram = Callable[[Variables, Data, np.ndarray], Iterator[Result]]
"""A function of one example mapped over a data set, see :func:`map_program`."""

_program_number = itertools.count()


def device_count() -> int:
    """Number of devices of all processes together; UserError where JAX finds, or may use, none."""
    jax_settings.check()
    jax_settings.check_devices()
    return jax.device_count()


def mean(tree: Tree) -> Tree:
    """Average over devices, inside a step."""
    averaged: Tree = lax.pmean(tree, AXIS)
    return averaged


def place(tree: Tree) -> Tree:
    """Copies a tree to every device of this process, so that no call has to do it again."""
    placed: Tree = jax.device_put(tree, _replicated_sharding())
    return placed


def replicated_shapes(tree: Tree) -> Tree:
    """Shapes and shardings of a tree that :func:`place` would put on the devices."""
    sharding = _replicated_sharding()
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    shapes: Tree = jax.tree.map(shape, tree)
    return shapes


def _replicated_sharding() -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), PartitionSpec())


def layout(batch_size: int, devices: int) -> np.ndarray:
    """Positions in the batch of the examples on each device: `-> [D, B / D]`.

    Device d has the d-th chunk of the first half and its mirror image from the second half, so that
    flipping its own part pairs position i with B-1-i of the whole batch, as equation (1) does.
    """
    if batch_size % (2 * devices):
        raise ValueError(f"batch size {batch_size} is not a multiple of {2 * devices}")
    first = np.arange(batch_size // 2).reshape(devices, -1)
    return np.concatenate([first, batch_size - 1 - first[:, ::-1]], axis=1)


def split(rows: np.ndarray) -> np.ndarray:
    """Batches divided over this process's devices: `[n, B, ...] -> [local D, n, B / D, ...]`."""
    positions = layout(rows.shape[1], jax.device_count())
    local = jax.local_device_count()
    here = positions[jax.process_index() * local : (jax.process_index() + 1) * local]
    return np.ascontiguousarray(np.moveaxis(rows[:, here], 1, 0))


def train_program(step: Step[State, Data], name: str) -> TrainProgram[State, Data]:
    """Compiles `step(state, data, key, schedule, plan) -> state, metrics` into a loop on devices.

    The program is `(state, data, key, schedule, plan, count) -> state, metrics [n], agreement`:
    `schedule` holds arrays `[n]`, `plan` arrays `[n, B]`; the first `count` rows of them are run.
    `count` is not a shape, so one compilation serves every call; more than one trace is an error.
    """
    step = jax.jit(step)  # Traced once for the shapes of its metrics and for the loop.

    def steps(
        state: State,
        data: Data,
        key: jax.Array,
        schedule: Schedule,
        plan: IndexPlan,
        count: jax.Array,
    ) -> tuple[State, Metrics, Agreement]:
        row = lambda i: jax.tree.map(lambda x: x[i], (schedule, plan))
        _, metrics = jax.eval_shape(lambda s: step(s, data, key, *row(0)), state)
        length = jax.tree.leaves(schedule)[0].shape[0]
        buffers: Metrics = jax.tree.map(lambda m: jnp.zeros((length, *m.shape), m.dtype), metrics)

        def body(i: jax.Array, carry: tuple[State, Metrics]) -> tuple[State, Metrics]:
            state, buffers = carry
            state, metrics = step(state, data, key, *row(i))
            return state, jax.tree.map(lambda b, m: b.at[i].set(m), buffers, metrics)

        state, buffers = lax.fori_loop(0, count, body, (state, buffers))
        agree = _devices_agree((state, buffers)) if jax.device_count() > 1 else True
        return state, buffers, agree

    compiled = _pmap(steps, name, in_axes=(None, None, None, None, 0, None), donate=(0,))

    def program(
        state: State, data: Data, key: jax.Array, schedule: Schedule, plan: IndexPlan, count: int
    ) -> tuple[State, Metrics, Agreement]:
        parts = jax.tree.map(split, plan)
        return compiled(state, data, key, schedule, parts, np.int32(count))

    return program


def check_agreement(agree: Agreement, stage: str) -> None:
    """Raises RuntimeError where a call left devices with different states; waits for the call."""
    if not agree:
        raise RuntimeError(f"devices disagree after {stage}: a value was not averaged over devices")


def map_program(
    function: Callable[[Variables, Data], Result], name: str, chunk: int
) -> MapProgram[Variables, Data, Result]:
    """Compiles `function(variables, example) -> result`, written for one example, over a data set.

    The program is `(variables, data, indices [n]) -> iterator of results`: `data` is a tree of
    arrays `[N, ...]`, of which each call takes `chunk` examples per device. Where they lie in host
    memory or on a disk, they are read while the call before runs; no array is read, and no picture
    decoded, that the results do not depend on. The last call is padded, and the padding is dropped,
    so that every index counts exactly once. Results are numpy arrays in the order of `indices`,
    some rows at a time.
    """

    def mapped(variables: Variables, data: Data, indices: jax.Array) -> tuple[jax.Array, Result]:
        return mapped_given(variables, jax.tree.map(lambda x: x[indices], data), indices)

    def mapped_given(
        variables: Variables, examples: Data, indices: jax.Array
    ) -> tuple[jax.Array, Result]:
        results = jax.vmap(lambda example: function(variables, example))(examples)
        gathered: tuple[jax.Array, Result] = lax.all_gather((indices, results), AXIS)
        return gathered

    compiled = _pmap(mapped, name, in_axes=(None, None, 0))
    compiled_given = _pmap(mapped_given, name, in_axes=(None, 0, 0))

    needed_by: dict[jax.tree_util.PyTreeDef, object] = {}  # The shapes of a structure stay.

    def program(variables: Variables, data: Data, indices: np.ndarray) -> Iterator[Result]:
        given = not all(isinstance(x, jax.Array) for x in jax.tree.leaves(data))
        run, structure = compiled_given if given else compiled, jax.tree.structure(data)
        if given and structure not in needed_by:
            needed_by[structure] = needed(function, variables, data)

        def read(call: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, Data, np.ndarray]:
            wanted, rows = call
            if not given:
                return wanted, data, rows

            def take(x: np.ndarray, is_needed: bool) -> np.ndarray:
                blank = (np.zeros((), x.dtype), (*rows.shape, *x.shape[1:]))
                return take_rows(x, rows) if is_needed else np.broadcast_to(*blank)

            return wanted, jax.tree.map(take, data, needed_by[structure]), rows

        before = None  # Results are fetched one call late, so that devices never wait.
        for wanted, examples, rows in _read_ahead(read, _calls(indices, chunk)):
            now = wanted, run(variables, examples, rows)
            if before is not None:
                yield _in_order(*before)
            before = now
        if before is not None:
            yield _in_order(*before)

    return program


def needed(
    function: Callable[[Variables, Data], object], variables: Variables, data: Data
) -> object:
    """A tree of bools: the arrays `[N, ...]` of `data` that `function(variables, example)` uses."""
    dtype = lambda x: jax.dtypes.canonicalize_dtype(x.dtype)  # Devices have no int64.
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], dtype(x)), data)
    traced = jax.make_jaxpr(function)(variables, one).jaxpr
    _, used = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
    leaves, structure = jax.tree.flatten(one)
    return jax.tree.unflatten(structure, used[len(used) - len(leaves) :])


def _calls(indices: np.ndarray, chunk: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of each call, and those of its local devices, padded: `[n], [local D, chunk]`."""
    local, devices = jax.local_device_count(), jax.device_count()
    here = jax.process_index() * local + np.arange(local)
    for start in range(0, len(indices), chunk * devices):
        wanted = np.asarray(indices[start : start + chunk * devices], np.int32)
        yield wanted, np.resize(wanted, (devices, chunk))[here]


def _read_ahead(read: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
    """`map(read, items)`, where a thread reads the next one while the caller has the last."""
    with concurrent.futures.ThreadPoolExecutor(1, "read") as thread:
        following = None
        for item in items:
            now, following = following, thread.submit(read, item)
            if now is not None:
                yield now.result()
        if following is not None:
            yield following.result()


def _in_order(wanted: np.ndarray, gathered: tuple[jax.Array, Result]) -> Result:
    """Results of a call in the order of the indices `wanted`, whichever device gave them."""
    indices, results = jax.device_get(gathered)
    indices = indices.ravel()
    sorter = np.argsort(indices, kind="stable")
    order = sorter[np.searchsorted(indices, wanted, sorter=sorter)]
    ordered: Result = jax.tree.map(lambda r: r.reshape(-1, *r.shape[2:])[order], results)
    return ordered


def sharded_program(
    function: Callable[..., Result], in_axes: tuple[int | None, ...]
) -> Callable[..., Result]:
    """Compiles a function of one device's shard of some rows, see `sharded_picks.shard`.

    It may call collectives over `AXIS`; what it returns must be alike on all devices.
    """
    compiled = jax.pmap(function, axis_name=AXIS, in_axes=in_axes, out_axes=None)
    return blocking_on_cpu(compiled)


def _pmap(
    function: Callable[..., Result], name: str, in_axes: tuple[int | None, ...],
    donate: tuple[int, ...] = (),
) -> Callable[..., Result]:  # fmt: skip
    # chex counts traces by a function's name and source: unique while it counts, plain for XLA,
    # whose cache of compiled programs goes by name.
    function.__name__ = f"{name}_{next(_program_number)}"
    counted = chex.assert_max_traces(function, n=1)
    counted.__name__ = name
    # With several processes, donating a replicated state fails ("Array has been deleted").
    donate = donate if jax.process_count() == 1 else ()
    compiled = jax.pmap(
        counted, axis_name=AXIS, in_axes=in_axes, out_axes=None, donate_argnums=donate
    )
    return blocking_on_cpu(compiled)


def blocking_on_cpu(program: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The program; on a CPU its calls return when they have ended.

    Collectives in flight at the same time dead-lock CPU devices on few cores, and of a result that
    could not be made, memory being full, nobody would hear: who reads it waits for ever.
    """
    if jax.default_backend() != "cpu":
        return program

    def blocking(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        result: Result = jax.block_until_ready(program(*args, **kwargs))
        return result

    return blocking


def _devices_agree(tree: object) -> jax.Array:
    """Whether all devices hold the same bits: `-> bool []`."""

    def differs(x: jax.Array) -> jax.Array:
        bits = lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}") if x.dtype != bool else x
        total = jnp.sum(bits.astype(jnp.uint32))
        return lax.pmax(total, AXIS) != lax.pmin(total, AXIS)

    return ~jnp.any(jnp.stack([differs(x) for x in jax.tree.leaves(tree)]))
