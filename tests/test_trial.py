"""Reports whose metrics are fetched one call late, and states that devices disagree on."""

import json

import jax.numpy as jnp
import pytest
from conftest import read_csv, several_devices

from configs import smoke
from tavaal_jax import loop, parallel, study


def config_of(**overrides):
    config = smoke.get_config()
    with config.unlocked():
        config.update({"methods": "random", "cycles": 2, "batch_size": 16, **overrides})
    return config


def records(folder):
    lines = (folder / "random" / "trial_0" / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_late_metrics_are_the_same_and_none_is_lost(tmp_path, monkeypatch):
    config = config_of(seconds_per_call=0.0, steps_per_call=3)
    study.run(config, tmp_path / "at_once")
    monkeypatch.setattr(loop.Report, "is_ready", lambda self: False)
    study.run(config, tmp_path / "late")
    assert records(tmp_path / "late") == records(tmp_path / "at_once")
    late, at_once = (read_csv(tmp_path / name / "results.csv") for name in ("late", "at_once"))
    assert late == at_once


@several_devices
def test_a_state_that_devices_disagree_on_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "_devices_agree", lambda tree: jnp.bool_(False))
    with pytest.raises(RuntimeError, match="devices disagree after task"):
        study.run(config_of(), tmp_path)
