"""Limits of control groups, of both versions, from made-up trees."""

import pytest

from tavaal_jax.engine import container, memory


def written(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    return root


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": ""}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        (  # The limit of a group above it.
            {
                "proc/self/cgroup": "0::/pod/one\n",
                "sys/fs/cgroup/pod/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/pod/one/cpu.max": "max 100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/pod\n3:cpu,cpuacct:/pod\n0::/\n",
                "sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/pod/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_a_containers_quota_of_the_cpus(files, allowed, tmp_path):
    assert container.cpus(written(tmp_path, files)) == allowed


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "8589934592\n"}, 2**33),
        (  # The least of a group and of those above it.
            {
                "proc/self/cgroup": "0::/pod/one\n",
                "sys/fs/cgroup/pod/memory.max": "1000000\n",
                "sys/fs/cgroup/pod/one/memory.max": "2000000\n",
            },
            1_000_000,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/pod\n3:cpu:/pod\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/pod/memory.limit_in_bytes": "3000000\n",
            },
            3_000_000,
        ),
    ],
)
def test_a_containers_limit_of_memory(files, allowed, tmp_path):
    assert container.memory(written(tmp_path, files)) == allowed


def test_a_process_has_no_more_memory_than_its_container(monkeypatch):
    monkeypatch.setattr(container, "memory", lambda: 2**20)
    assert memory._host_bytes() == 2**20
    monkeypatch.setenv(memory.SHARED_BY, "4")
    assert memory._host_bytes() == 2**18
    monkeypatch.setattr(container, "memory", lambda: 2**70)
    assert 2**25 < memory._host_bytes() < 2**60
