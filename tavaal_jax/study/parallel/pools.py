"""Ways to run a study's trials in other processes, by what `config.parallel` names."""

import pathlib
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.data import SETS, Dataset
from tavaal_jax.engine import device_shares
from tavaal_jax.models.networks import NETWORKS
from tavaal_jax.study.parallel import ray_pool, ray_share, worker_pool
from tavaal_jax.study.parallel.runner import Outcomes
from tavaal_jax.study.parallel.worker import Job
from tavaal_jax.study.trial import TrialHooks

Pool = Callable[[Job, Sequence[tuple[str, int]], TrialHooks], Outcomes]
"""Runs trials, pairs of method and trial, each in one of several other processes."""


def _on_this_machine(job: Job, todo: Sequence[tuple[str, int]], hooks: TrialHooks) -> Outcomes:
    return worker_pool.run(job, device_shares.divide_machine(job.config.workers), todo, hooks)


POOLS: dict[str, Pool] = {"trials": _on_this_machine, "ray": ray_pool.run}


def check(config: ConfigDict) -> None:
    """Raises UserError where what `config.parallel` needs is not installed."""
    if config.parallel == "ray":
        ray_pool.check()


def devices_of_trial(config: ConfigDict) -> int:
    """Number of devices that a trial in another process will have."""
    return ray_share.devices_of(config) if config.parallel == "ray" else 1


def job(
    config: ConfigDict,
    folder: pathlib.Path,
    names: Sequence[str],
    dataset: Dataset,
    is_given: bool,
    made_by: str | None,
) -> Job:
    """Job of a study with the methods `names`.

    `is_given`: the data set is not the config's, and travels. `made_by` is the digest of what makes
    features.
    """
    methods = {name: METHODS[name] for name in names}
    used = {config.task.network, config.backbone.name} - {""}
    networks = {name: NETWORKS[name] for name in used}
    if is_given:
        return Job(config, folder, dataset, methods, networks, {}, made_by)
    # Machines may have other files under the same name.
    fingerprint = dataset.fingerprint() if config.parallel == "ray" else None
    sets = {dataset.name: SETS[dataset.name]}
    return Job(config, folder, None, methods, networks, sets, made_by, fingerprint)
