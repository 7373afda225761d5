"""Shared by the benchmarks: our programs on CIFAR-shaped data, the peer's process, fair timing.

Ours and the peers take turns, one turn each per round. A turn begins with an untimed run, so that
neither side pays for what the other left in caches and free memory. The reported ratio is the
median over the rounds of the peer's time divided by ours. The machine's matrix-product peak is
measured in the same run.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tavaal_jax.algorithm import optim
from tavaal_jax.algorithm.adversary import Rank
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.state import Example
from tavaal_jax.data import Dataset, plans
from tavaal_jax.data.oracle import SimulatedOracle
from tavaal_jax.engine import allocator, devices
from tavaal_jax.engine.programs import Inference, PoolExample
from tavaal_jax.engine.steps import Networks
from tavaal_jax.study import setup

FOLDER = pathlib.Path(__file__).parent
WAYS = ("eager", "compiled")
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Of a CPU, in /proc/cpuinfo: what decides how fast it multiplies matrices."""
sys.path.insert(0, str(FOLDER.parent))
from configs import cifar100  # noqa: E402


def parser(docstring: str, rounds: int) -> argparse.ArgumentParser:
    """Flags that every benchmark has; called first of all, it allows huge pages as `main` does."""
    allocator.restart_with_huge_pages()
    flags = argparse.ArgumentParser(description=docstring.splitlines()[0])
    flags.add_argument("--rounds", type=int, default=rounds, help="runs of each side")
    flags.add_argument(
        "--huge_pages_for_peer", action="store_true", help="give PyTorch our allocator setting"
    )
    flags.add_argument("--json", action="store_true", help="last line: one JSON object")
    return flags


class Peer:
    """A process of `torch_peer.py`, on a GPU where JAX is on one: a call is a turn of some runs."""

    def __init__(self, work: str, huge_pages: bool = False, **arguments):
        # It starts as a user's would: with the default allocator and its own threads.
        ours = () if huge_pages else ("GLIBC_TUNABLES",)
        clean = {k: v for k, v in os.environ.items() if k not in ours}
        arguments["device"] = "cuda" if jax.default_backend() == "gpu" else "cpu"
        self._process = subprocess.Popen(
            [sys.executable, str(FOLDER / "torch_peer.py"), work, json.dumps(arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=clean,
        )  # fmt: skip
        self.about = self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the PyTorch peer ended: see above; pip install -e '.[bench]' first")
        return json.loads(line)

    def __call__(self, untimed: int = 1, timed: int = 1) -> float:
        """Seconds of a run, the mean of `timed` runs after some that are not timed."""
        self._process.stdin.write(json.dumps({"untimed": untimed, "timed": timed}) + "\n")
        self._process.stdin.flush()
        return self._answer()["seconds"] / timed

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def turn(function: Callable[[], object]) -> float:
    """Wall time of a call, results waited for, after one that is not timed."""
    jax.block_until_ready(function())
    return seconds_of(function)


def seconds_of(function: Callable[[], object]) -> float:
    """Wall time of one call, its results waited for."""
    begin = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - begin


def interleave(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each side says it took, the sides in turn, `rounds` times."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(side())
    return times


def matrix_peak() -> float:
    """GFLOP/s of a float32 matrix product, the best of several."""
    x = jnp.ones((2048, 2048))
    product = jax.jit(lambda a: a @ a)
    seconds_of(lambda: product(x))
    return 2e-9 * 2048**3 / min(seconds_of(lambda: product(x)) for _ in range(5))


def report(title: str, times: dict, gflop: float | None, arguments, **more) -> None:
    """Prints a table of medians and spreads; the first of `times` is ours, each other a peer.

    `ratio` is that to the first peer, the faster way of it where it ran eager and compiled.
    """
    ours, *peers = times
    others = [peer for peer in peers if not peer.startswith("ours")] or peers
    ways = [peer for peer in others if peer.partition(", ")[0] == others[0].partition(", ")[0]]
    best = min(ways, key=lambda peer: statistics.median(times[peer]))
    peak = matrix_peak()
    print(f"{title}; {machine()}")
    for name, values in times.items():
        line = f"  {name:44s} {statistics.median(values):8.3f} s"
        line += f"  ({min(values):.3f} to {max(values):.3f}, n = {len(values)})"
        if name != ours:
            line += f"  ratio {_ratio(times, name, ours):.2f}"
        print(line)
    result = {"seconds": times, "ratios": {p: _ratio(times, p, ours) for p in peers}, **more}
    if gflop is not None:
        rate = gflop / statistics.median(times[ours])
        result |= {"peak_gflops": peak, "share_of_peak": rate / peak}
        print(
            f"  ours does {gflop:.0f} GFLOP of direct convolution at {rate:.0f} GFLOP/s,"
            f" {rate / peak:.2f} of the matrix peak, {peak:.0f} GFLOP/s"
        )
    if arguments.json:
        print(json.dumps({"ratio": result["ratios"][best], **result, "machine": machine()}))


def _ratio(times, peer, ours):
    return statistics.median(p / o for p, o in zip(times[peer], times[ours], strict=True))


def machine() -> str:
    """Hardware and versions in one line."""
    device = jax.devices()[0]
    model, features = platform.processor() or platform.machine(), ""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (
            x.split(":", 1) for x in cpuinfo.read_text(encoding="utf-8").splitlines() if ":" in x
        )
        found = {name.strip(): value for name, value in lines}
        model = found.get("model name", model).strip()
        has = [name for name in FEATURES if name in found.get("flags", "").split()]
        features = f" ({' '.join(has)})" if has else ""
    devices = f"{jax.device_count()} x {device.device_kind}"
    return f"{devices}, {model}{features}, {os.cpu_count()} cores, jax {jax.__version__}"


def random_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images of CIFAR's shape, and labels of 100 classes."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return pixels, random.integers(0, 100, count).astype(np.int32)


def cifar(dtype: str = "float32", images: int = 4096, **overrides) -> "Programs":
    """The programs of `tavaal` with `configs/cifar100.py` on random images of CIFAR's shape."""
    config = cifar100.get_config()
    with config.unlocked():
        config.update({"dtype": dtype, **overrides})
    pixels, labels = random_images(images)
    dataset = Dataset.from_arrays(
        pixels, labels, pixels[:256], labels[:256], class_names=[str(i) for i in range(100)]
    )
    return Programs(config, dataset)


class Programs:
    """The programs of a method on a data set of which everything is labelled."""

    def __init__(self, config, dataset: Dataset, method: str = "tavaal"):
        self.config = config
        oracle, placed = SimulatedOracle.of(dataset), setup.place(config, dataset)
        self.setup = setup.prepare(config, METHODS[method], dataset, placed, oracle)
        self.train_set = self.setup.with_labels(oracle.answer(np.arange(self.setup.size)))
        self.key = jax.random.key(0)
        fresh = devices.place(self.setup.programs.init(self.key, 0))
        self.learner, self.adversary = fresh
        self.numbers = devices.place(np.arange(self.setup.size))

    def train(self, stage: str, steps: int) -> object:
        """Some steps of a training stage; the weights go on from call to call."""
        rows, size = self.config.steps_per_call, self.config.batch_size
        half = self.setup.size // 2
        labelled = np.arange(rows * size, dtype=np.int32).reshape(rows, size) % half
        positions = np.tile(np.arange(size, dtype=np.int32), (rows, 1))
        plan = plans.IndexPlan(labelled, None if stage == "task" else labelled + half, positions)
        ranks = devices.place(np.zeros((self.setup.size, 1), np.float32))
        condition = Rank(ranks, ranks) if stage == "adversary" else None
        # The second epoch: in the first, the joint stage needs no ranks.
        schedule = optim.schedule(self.config, half // size, rows, half // size)
        state = Networks(
            None if stage == "adversary" else self.learner,
            None if stage == "task" else self.adversary,
        )
        data = (self.train_set, condition)
        program = self.setup.programs.train[stage]
        state, metrics, _ = program(state, data, self.key, schedule, plan, steps)
        if stage != "adversary":
            self.learner = state.learner
        if stage != "task":
            self.adversary = state.adversary
        return metrics

    def _infer(self, indices):
        """What a cycle keeps of T and R, `[N]`; nothing where the method needs nothing."""
        if not self.setup.programs.needs_inference:
            return Inference(None, None)
        variables = (self.learner, self.train_set.normalise)
        parts = self.setup.programs.infer(variables, self.train_set.images, indices)

        def whole(*parts):
            part = np.concatenate(parts)
            found = np.zeros((self.setup.size, *part.shape[1:]), part.dtype)
            found[indices] = part
            return found

        return devices.place(jax.tree.map(whole, *parts))

    def scores(self, indices) -> np.ndarray:
        """Values of some images, as a cycle gets them for picking: of `tavaal` D's logits."""
        indices = np.asarray(indices)
        candidates = PoolExample(
            self.train_set.images, self.numbers, self._infer(indices), self.train_set.thumbnails
        )
        variables = (self.learner, self.adversary, self.train_set.normalise, self.key)
        parts = self.setup.programs.values(variables, candidates, indices)
        return np.concatenate([part.value for part in parts])

    def accuracy(self) -> np.ndarray:
        """Counts of T on the test set."""
        test = self.setup.test
        variables, indices = (self.learner, test.normalise), np.arange(len(test.images))
        examples = Example(test.images, test.labels)
        return sum(
            part.sum(0) for part in self.setup.programs.evaluate(variables, examples, indices)
        )


def step_flags(docstring: str) -> argparse.Namespace:
    """The command line of the benchmarks of training steps."""
    flags = parser(docstring, rounds=7)
    flags.add_argument("--batch_size", type=int, default=128)
    flags.add_argument("--steps", type=int, default=1, help="timed in each turn; more on a GPU")
    flags.add_argument("--bfloat16", action="store_true", help="ours and PyTorch's, under autocast")
    return flags.parse_args()


def compare_steps(stage: str, peers: dict[str, str], arguments) -> None:
    """Times a training step of `stage` against the peers; in bfloat16 against our float32 too."""
    size, steps = arguments.batch_size, arguments.steps
    dtypes = ("bfloat16", "float32") if arguments.bfloat16 else ("float32",)
    ours = {f"ours, {dtype}": cifar(dtype, batch_size=size) for dtype in dtypes}
    sides = {
        name: lambda p=p: turn(lambda: p.train(stage, steps)) / steps for name, p in ours.items()
    }
    for side in sides.values():
        side()  # compiles
    config = next(iter(ours.values())).config
    processes = both_ways(peers, config, arguments, batch_size=size, bfloat16=arguments.bfloat16)
    turns = {name: lambda p=p: p(timed=steps) for name, p in processes.items()}
    times = interleave({**sides, **turns}, arguments.rounds)
    about = {name: peer.about for name, peer in processes.items()}
    for peer in processes.values():
        peer.close()
    dtype = " in bfloat16" * arguments.bfloat16
    report(f"{stage} step{dtype}, batch {size}", times, gflop(about), arguments, peers=about)


def both_ways(peers: dict[str, str], config, arguments, **more) -> dict[str, Peer]:
    """Each peer, `{name: work}`, eager and compiled, for networks like those of the config."""
    like = {"hidden": len(config.discriminator.hidden), "latent": config.vae.latent}
    return {
        f"{name}, {way}": Peer(
            work, arguments.huge_pages_for_peer, **like, **more, compiled=way == "compiled"
        )
        for name, work in peers.items()
        for way in WAYS
    }


def gflop(about: dict[str, dict]) -> float | None:
    """GFLOP of a run, counted without compilation; that of the last peer, which does the least."""
    return [peer["gflop"] for peer in about.values() if peer["gflop"]][-1]
