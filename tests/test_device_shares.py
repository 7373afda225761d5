"""What each worker process sees of the machine."""

import os

import pytest

from tavaal_jax.engine import container, device_shares, memory
from tavaal_jax.errors import UserError


@pytest.fixture
def machine(monkeypatch):
    """Makes it one with other devices and cores: `(platform, devices, cores)`."""

    def change(platform, devices, cores=(0, 1, 2, 3, 4), chips=None):
        monkeypatch.setattr(
            device_shares, "_probe", lambda _: (platform, devices, chips or devices)
        )
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(cores))

    return change


@pytest.mark.parametrize(
    ("count", "cores"),
    [(0, [{1}, {4}, {6}]), (3, [{1}, {4}, {6}]), (2, [{1, 6}, {4}]), (1, [{1, 4, 6}]),
     (4, [{1}, {4}, {6}, {1}])],
)  # fmt: skip
def test_the_cores_of_a_cpu_are_shared_out(machine, monkeypatch, count, cores):
    machine("cpu", 1, (6, 1, 4))
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "4")
    monkeypatch.setenv("XLA_FLAGS", "--a=1 --xla_force_host_platform_device_count=4 --b=2")
    found = device_shares.divide_machine(count)
    assert [share.cores for share in found] == cores
    assert {share.environment["XLA_FLAGS"] for share in found} == {"--a=1 --b=2"}
    assert {share.environment[memory.SHARED_BY] for share in found} == {str(len(cores))}
    assert not any("JAX_NUM_CPU_DEVICES" in share.environment for share in found)


@pytest.mark.parametrize(
    ("platform", "name"),
    [("gpu", "CUDA_VISIBLE_DEVICES"), ("cuda", "CUDA_VISIBLE_DEVICES"),
     ("rocm", "ROCR_VISIBLE_DEVICES"), ("tpu", "TPU_VISIBLE_CHIPS")],
)  # fmt: skip
def test_each_gets_one_accelerator(machine, monkeypatch, platform, name):
    machine(platform, 4)
    monkeypatch.delenv(name, raising=False)
    found = device_shares.divide_machine()
    assert [share.environment[name] for share in found] == ["0", "1", "2", "3"]
    assert not any(share.cores for share in found)
    assert ("TPU_PROCESS_BOUNDS" in found[0].environment) == (platform == "tpu")
    assert len(device_shares.divide_machine(2)) == 2


def test_only_accelerators_that_the_user_allows_are_given(machine, monkeypatch):
    machine("cuda", 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    found = device_shares.divide_machine()
    assert [share.environment["CUDA_VISIBLE_DEVICES"] for share in found] == ["5", "GPU-7"]


def test_more_workers_than_accelerators_are_refused(machine):
    machine("cuda", 2)
    with pytest.raises(UserError, match="workers is 3, and there are 2 devices: give at most"):
        device_shares.divide_machine(3)


def test_settings_of_jax_go_along(machine, compiled):
    machine("cpu", 1)
    environment = device_shares.divide_machine(1)[0].environment
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(compiled)
    assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0.1"


@pytest.mark.parametrize(("platform", "chips"), [("tpu", 2), ("abacus", 4)])
def test_devices_that_cannot_be_told_apart_are_refused(machine, platform, chips):
    machine(platform, 4, chips=chips)
    with pytest.raises(UserError, match=f"one of 4 {platform} devices on {chips} chips: give"):
        device_shares.divide_machine()


def test_the_machine_is_looked_at_from_another_process():
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    platform, found, chips = device_shares._probe(environment)
    assert platform in ("cpu", "gpu", "tpu", "cuda")
    assert found >= chips >= 1
    with pytest.raises(UserError, match="JAX finds no device for worker processes"):
        device_shares._probe({**environment, "JAX_PLATFORMS": "nonsense"})


def test_without_a_number_there_are_no_more_workers_than_the_quota(machine, monkeypatch):
    machine("cpu", 1)
    monkeypatch.setattr(container, "cpus", lambda: 2)
    assert [share.cores for share in device_shares.divide_machine()] == [{0, 2, 4}, {1, 3}]
    assert len(device_shares.divide_machine(5)) == 5
