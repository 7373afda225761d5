"""Devices: the only file that knows them, pmap, and the name of the batch axis.

A step is written for one device's part of the batch and calls :func:`mean` on what the devices must
agree on. `in_axes` None is for what all devices hold alike, such as the state; what is returned is
alike on all devices; training programs say whether it is, for :func:`check_agreement`.
"""

import concurrent.futures
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import partial_eval
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tavaal_jax.data.pool import take_rows

AXIS = "batch"

_program_number = itertools.count()


def device_count() -> int:
    """All devices of all processes."""
    return jax.device_count()


def mean(tree: Any) -> Any:
    """Averages over devices, inside a step."""
    return lax.pmean(tree, AXIS)


def place(tree: Any) -> Any:
    """Puts a tree on every device of this process, once, so that no call has to copy it again."""
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def layout(batch_size: int, devices: int) -> np.ndarray:
    """Positions of the batch that each device gets: `-> [D, B / D]`.

    Device d has the d-th chunk of the first half and its mirror image from the second half, so that
    flipping its own part pairs position i with B-1-i of the whole batch, as equation (1) does.
    """
    if batch_size % (2 * devices):
        raise ValueError(f"batch size {batch_size} is not a multiple of {2 * devices}")
    first = np.arange(batch_size // 2).reshape(devices, -1)
    return np.concatenate([first, batch_size - 1 - first[:, ::-1]], axis=1)


def replicated(tree: Any) -> Any:
    """Shapes of a tree that :func:`place` would put on the devices, to restore it there."""
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def split(rows: np.ndarray) -> np.ndarray:
    """Batches as this process's devices get them: `[n, B, ...] -> [local D, n, B / D, ...]`."""
    positions = layout(rows.shape[1], jax.device_count())
    local = jax.local_device_count()
    mine = positions[jax.process_index() * local : (jax.process_index() + 1) * local]
    return np.ascontiguousarray(np.moveaxis(rows[:, mine], 1, 0))


Train = Callable[..., tuple[Any, dict[str, jax.Array], jax.Array | bool]]
Map = Callable[..., Iterator[Any]]


def train_program(step: Callable[..., tuple[Any, dict[str, jax.Array]]], name: str) -> Train:
    """Compiles `step(state, data, key, schedule, plan) -> state, metrics` into a loop on devices.

    The program is `(state, data, key, schedule, plan, count) -> state, metrics [n], agree`:
    `schedule` holds arrays `[n]`, `plan` arrays `[n, B]`; the first `count` rows of them are run.
    `count` is not a shape, so one compilation serves every call; more than one trace is an error.
    `agree` says whether all devices ended with the same bits, see :func:`check_agreement`.
    """

    step = jax.jit(step)  # Traced once for the shapes of its metrics and for the loop.

    def steps(
        state: Any, data: Any, key: jax.Array, schedule: Any, plan: Any, count: jax.Array
    ) -> tuple[Any, dict[str, jax.Array], jax.Array | bool]:
        row = lambda i: jax.tree.map(lambda x: x[i], (schedule, plan))
        _, metrics = jax.eval_shape(lambda s: step(s, data, key, *row(0)), state)
        length = jax.tree.leaves(schedule)[0].shape[0]
        buffers = jax.tree.map(lambda m: jnp.zeros((length, *m.shape), m.dtype), metrics)

        def body(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            state, buffers = carry
            state, metrics = step(state, data, key, *row(i))
            return state, jax.tree.map(lambda b, m: b.at[i].set(m), buffers, metrics)

        state, buffers = lax.fori_loop(0, count, body, (state, buffers))
        agree = _devices_agree((state, buffers)) if jax.device_count() > 1 else True
        return state, buffers, agree

    compiled = _pmap(steps, name, in_axes=(None, None, None, None, 0, None), donate=(0,))

    def program(
        state: Any, data: Any, key: jax.Array, schedule: Any, plan: Any, count: int
    ) -> tuple[Any, dict[str, jax.Array], jax.Array | bool]:
        parts = jax.tree.map(split, plan)
        state, metrics, agree = compiled(state, data, key, schedule, parts, np.int32(count))
        return state, metrics, agree

    return program


def check_agreement(agree: jax.Array | bool, stage: str) -> None:
    """Raises RuntimeError where a call left devices with different states; waits for the call."""
    if not agree:
        raise RuntimeError(f"devices disagree after {stage}: a value was not averaged over devices")


def map_program(function: Callable[[Any, Any], Any], name: str, chunk: int) -> Map:
    """Compiles `function(variables, example) -> result`, written for one example, over a data set.

    The program is `(variables, data, indices [n]) -> iterator of results`: `data` is a tree of
    arrays `[N, ...]`, of which each call takes `chunk` examples per device; where they lie in host
    memory or on a disk, it is handed those examples, which are read while the call before runs. No
    array is read, and no picture decoded, that the results do not depend on. The last call is
    padded, and the padding is dropped, so that every index counts exactly once. Results are numpy
    arrays in the order of `indices`, some rows at a time.
    """

    def mapped(variables: Any, data: Any, indices: jax.Array) -> Any:
        return mapped_given(variables, jax.tree.map(lambda x: x[indices], data), indices)

    def mapped_given(variables: Any, examples: Any, indices: jax.Array) -> Any:
        results = jax.vmap(lambda example: function(variables, example))(examples)
        return lax.all_gather((indices, results), AXIS)

    compiled = _pmap(mapped, name, in_axes=(None, None, 0))
    compiled_given = _pmap(mapped_given, name, in_axes=(None, 0, 0))

    found: dict[Any, Any] = {}  # By the structure of the data: their shapes stay.

    def program(variables: Any, data: Any, indices: np.ndarray) -> Iterator[Any]:
        given = not all(isinstance(x, jax.Array) for x in jax.tree.leaves(data))
        call, structure = compiled_given if given else compiled, jax.tree.structure(data)
        if given and structure not in found:
            found[structure] = needed(function, variables, data)

        def read(call: tuple[np.ndarray, np.ndarray]) -> tuple[Any, ...]:
            wanted, rows = call
            if not given:
                return wanted, data, rows

            def take(x: Any, is_needed: bool) -> np.ndarray:
                blank = (np.zeros((), x.dtype), (*rows.shape, *x.shape[1:]))
                return take_rows(x, rows) if is_needed else np.broadcast_to(*blank)

            return wanted, jax.tree.map(take, data, found[structure]), rows

        before = None  # Results are fetched one call late, so that devices never wait.
        for wanted, examples, rows in _one_ahead(read, _calls(indices, chunk)):
            now = wanted, call(variables, examples, rows)
            if before is not None:
                yield _in_order(*before)
            before = now
        if before is not None:
            yield _in_order(*before)

    return program


def needed(function: Callable[[Any, Any], Any], variables: Any, data: Any) -> Any:
    """Of each array `[N, ...]` in `data`, whether `function(variables, example)` depends on it."""
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), data)
    traced = jax.make_jaxpr(function)(variables, one).jaxpr
    _, used = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
    leaves, structure = jax.tree.flatten(one)
    return jax.tree.unflatten(structure, used[len(used) - len(leaves) :])


def _calls(indices: np.ndarray, chunk: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of each call, and those of its local devices, padded: `[n], [local D, chunk]`."""
    local, devices = jax.local_device_count(), jax.device_count()
    mine = jax.process_index() * local + np.arange(local)
    for start in range(0, len(indices), chunk * devices):
        wanted = np.asarray(indices[start : start + chunk * devices], np.int32)
        yield wanted, np.resize(wanted, (devices, chunk))[mine]


def _one_ahead(read: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
    """`map(read, items)`, where a thread reads the next one while the caller has the last."""
    with concurrent.futures.ThreadPoolExecutor(1, "read") as thread:
        following = None
        for item in items:
            now, following = following, thread.submit(read, item)
            if now is not None:
                yield now.result()
        if following is not None:
            yield following.result()


def _in_order(wanted: np.ndarray, results: Any) -> Any:
    """Results of a call in the order of the indices `wanted`; devices may answer in another one."""
    gathered, results = jax.device_get(results)
    gathered = gathered.ravel()
    sorter = np.argsort(gathered, kind="stable")
    order = sorter[np.searchsorted(gathered, wanted, sorter=sorter)]
    return jax.tree.map(lambda r: r.reshape(-1, *r.shape[2:])[order], results)


def spread(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares rows out among all devices: `[n, ...] -> [local D, m, ...], [local D]`.

    Device d has the d-th m of them, of which the number of the first is told; zeros fill up the
    last ones' parts.
    """
    length = -(-len(rows) // jax.device_count())
    local = jax.local_device_count()
    begins = (jax.process_index() * local + np.arange(local, dtype=np.int32)) * length
    parts = np.zeros((local, length, *rows.shape[1:]), rows.dtype)
    for part, begin in zip(parts, begins, strict=True):
        mine = rows[begin : begin + length]
        part[: len(mine)] = mine
    return parts, begins


def spread_program(
    function: Callable[..., Any], in_axes: tuple[int | None, ...]
) -> Callable[..., Any]:
    """Compiles a function of this device's part of what :func:`spread` has shared out.

    It may call collectives over `AXIS`; what it returns is alike on all devices.
    """
    compiled = jax.pmap(function, axis_name=AXIS, in_axes=in_axes, out_axes=None)
    return waited_for(compiled)


def _pmap(
    function: Callable[..., Any], name: str, in_axes: tuple[int | None, ...],
    donate: tuple[int, ...] = (),
) -> Callable[..., Any]:  # fmt: skip
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
    return waited_for(compiled)


def waited_for(program: Callable[..., Any]) -> Callable[..., Any]:
    """The program; on a CPU one that has ended when it returns.

    Collectives in flight at the same time dead-lock CPU devices on few cores, and of a result that
    could not be made, memory being full, nobody would hear: who reads it waits for ever.
    """
    if jax.default_backend() != "cpu":
        return program
    return lambda *args: jax.block_until_ready(program(*args))


def _devices_agree(tree: Any) -> jax.Array:
    """Whether all devices hold the same bits: `-> bool []`."""

    def differs(x: jax.Array) -> jax.Array:
        bits = lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}") if x.dtype != bool else x
        total = jnp.sum(bits.astype(jnp.uint32))
        return lax.pmax(total, AXIS) != lax.pmin(total, AXIS)

    return ~jnp.any(jnp.stack([differs(x) for x in jax.tree.leaves(tree)]))
