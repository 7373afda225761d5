"""What is compiled for a method: its networks and the device side of every stage.

A training step is `(run, state, data, key, shared, batch) -> state, metrics`; it is compiled into a
loop of many steps by `parallel.train_program`. Scores and metrics are written for one example and
mapped over a data set by `parallel.map_program`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tavaal_jax import (
    acquisition,
    compilation,
    diagnostics,
    models,
    parallel,
    problem,
    task,
    vaal,
)
from tavaal_jax.data import Dataset
from tavaal_jax.methods import Method
from tavaal_jax.state import Stream, derive, example_keys


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same through all trials of a method: networks, data on devices, programs."""

    config: Any
    method: Method
    problem: problem.Classification
    networks: models.Networks
    size: int
    """N"""
    train: Any
    test: Any
    test_size: int
    pool: dict[str, Any]
    """What is mapped over to pick from it: `image [N, ...]`, `label [N]` and `index [N]`, on the
    devices."""
    labels: np.ndarray
    """True labels of the training images in host memory, for diagnostics."""
    plane: diagnostics.Plane | None
    """A grid around the training points, where they are points of the plane."""
    programs: dict[str, Callable] = dataclasses.field(default_factory=dict)


def prepare(config, method: Method, dataset: Dataset, device_data: tuple) -> Run:
    """A method's run on a data set whose arrays were put on the devices (`device_data`)."""
    networks = models.build(config, dataset.train_images.shape[1:], dataset.classes, parallel.AXIS)
    train, test = device_data
    run = Run(
        config, method, problem.of(config), networks,
        len(dataset.train_labels), train, test, len(dataset.test_labels),
        {
            "image": train.images, "label": train.labels,
            "index": parallel.place(np.arange(len(dataset.train_labels))),
        },
        dataset.train_labels,
        diagnostics.Plane.around(dataset.train_images) if dataset.is_plane else None,
    )  # fmt: skip
    chunk = config.score_batch_size
    for stage, step in (("task", _task_step), ("joint", _joint_step), ("adversary", _vaal_step)):
        run.programs[stage] = parallel.train_program(_bind(step, run), f"train_{stage}")
    for name, function in (
        ("evaluate", _evaluate_one), ("value", _value_one), ("inspect", _inspect_one)
    ):  # fmt: skip
        run.programs[name] = parallel.map_program(_bind(function, run), name, chunk)
    run.programs["init"] = jax.jit(
        _bind(_init_networks, run), compiler_options=compilation.quickly()
    )
    run.programs["classify"] = jax.jit(_bind(_classify, run))
    return run


def _bind(function, run):
    return lambda *args: function(run, *args)


def _init_networks(run, train, key, cycle):
    example = train.plain(jnp.zeros(1, jnp.int32))
    adversary = run.method.adversary is not None
    return {
        "task": task.init(run, key, cycle, example),
        "vaal": vaal.init(run, key, cycle, example) if adversary else None,
    }


def _task_step(run, state, data, key, shared, batch):
    train, _ = data
    augmentation = run.config.augmentation
    keys = example_keys(derive(key, Stream.AUGMENTATION, shared["step"]), batch["positions"])
    images = train.augmented(batch["labelled"], keys, augmentation.pad, augmentation.flip)
    dropout_keys = None
    if run.method.dropout:
        dropout_key = derive(key, Stream.DROPOUT, shared["step"])
        dropout_keys = example_keys(dropout_key, batch["positions"])
    labels = train.labels[batch["labelled"]]
    return task.train_step(run, state, images, labels, shared, dropout_keys)


def _joint_step(run, state, data, key, shared, batch):
    """Algorithm 1: ranks, then T and R, then the VAE, then D.

    The last cycle picks nothing and needs T alone: the same program leaves the rest out there, so
    that no second one has to be compiled.
    """
    train, _ = data
    task_state, vaal_state = state
    ranks = (vaal.Rank(None, None),) * 2
    if run.method.adversary == "ranked":
        ranks = _joint_ranks(run, task_state, train, key, shared, batch)
    task_state, task_metrics = _task_step(run, task_state, data, key, shared, batch)
    latent_key = derive(key, Stream.LATENT, shared["step"])

    def adversary(state):
        pools = vaal.pools(run, train, latent_key, batch, ranks)
        return vaal.train_step(run, state, *pools)

    def nothing(state):
        _, metrics = jax.eval_shape(adversary, state)
        return state, jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)

    vaal_state, vaal_metrics = lax.cond(shared["adversary"], adversary, nothing, vaal_state)
    return (task_state, vaal_state), {**task_metrics, **vaal_metrics}


def _joint_ranks(run, task_state, train, key, shared, batch):
    """r of both pools: U(0, 1) in the first epoch, then the Ranker's, on plain images."""

    def first():
        keys = (derive(key, Stream.FIRST_RANKS, shared["step"], number) for number in range(2))
        return tuple(vaal.first_ranks(key, batch["positions"]) for key in keys)

    def later():
        indices = jnp.concatenate([batch["labelled"], batch["unlabelled"]])
        predicted = task.predict_loss(run, task_state, train.plain(indices))
        return tuple(vaal.rank_of(run, half) for half in jnp.split(predicted, 2))

    return lax.cond(shared["first_epoch"] | ~shared["adversary"], first, later)


def _vaal_step(run, state, data, key, shared, batch):
    """Second phase of the released code: the VAE, then D, with constant ranks `predicted [N]`."""
    train, predicted = data
    rank = lambda name: vaal.rank_of(run, None if predicted is None else predicted[batch[name]])
    latent_key = derive(key, Stream.LATENT, shared["step"])
    pools = vaal.pools(run, train, latent_key, batch, (rank("labelled"), rank("unlabelled")))
    return vaal.train_step(run, state, *pools)


def _evaluate_one(run, variables, example):
    task_state, scale = variables
    output = task.predict(run, task_state, scale.normalise(example["image"])[None])
    return run.problem.counts(output.logits[0], example["label"])


def _inspect_one(run, variables, example):
    """True loss, and the Ranker's prediction of it, in one pass through T."""
    task_state, scale = variables
    output = task.predict(run, task_state, scale.normalise(example["image"])[None])
    seen = {"loss": run.problem.image_losses(output.logits, example["label"][None])[0]}
    if run.method.ranking_loss is not None:
        seen["predicted"] = task.predicted_loss_of(run, task_state, output)[0]
    return seen


def _value_one(run, variables, example):
    """What the method picks by; it does not see the label."""
    task_state, vaal_state, scale, keys_of = variables
    image = scale.normalise(example["image"])
    candidate = acquisition.Candidate(image, example.get("predicted"))
    key = jax.random.fold_in(keys_of, example["index"])
    return run.method.value(run, (task_state, vaal_state), candidate, key)


def _classify(run, variables, features):
    """Classes that T chooses for stored examples: `[n, ...] -> [n]`."""
    task_state, scale = variables
    logits = task.predict(run, task_state, jax.vmap(scale.normalise)(features)).logits
    return jnp.argmax(logits, -1)
