"""Claim: on one GPU a trial of the paper's size takes minutes, a joint step less than 6 ms.

Everything that waits for a GPU, in order, for machines that are there for minutes only:

    python benchmarks/on_gpu.py --data=cifar10.tar --minutes=8 --out=$OUT
    python benchmarks/on_gpu.py --data=cifar10.tar --minutes=5 --out=out --tiny

* trials: one more paired trial on CIFAR-10, ResNet-18, 1,000 + 1,000 to 5,000 labels, 200 epochs,
  balanced, then with the first five classes thinned 100:1; a method after the other.
* speed: joint, task and VAE step and scores, against eager and compiled PyTorch, in float32 (TF32)
  and bfloat16, with the share of the matrix products' peak in the same run.
* determinism: methods that share T before the first pick, and a trial that is killed and resumed,
  with XLA's deterministic kernels and without, and what these cost.
* pytest: the quick tests on the GPU.

Nothing is begun that would not end in time, by what it took before, or by a guess. After each cycle
and each measurement `--out` has all there is: results.csv, picks.csv, diagnostics.csv and
timings.json. Trials go on from such files, in `--out` or in studies/on_gpu/, to the same results;
those of several days add up. --tiny: tiny networks and data, for a try on a CPU.
"""

import argparse
import contextlib
import functools
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import harness
import jax
import jax.numpy as jnp
import mosaics
import numpy as np
from ml_collections import ConfigDict
from packed import Packed, Place

import tavaal_jax
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.data import Dataset
from tavaal_jax.data.loading import thinned
from tavaal_jax.engine import allocator, compilation
from tavaal_jax.errors import Interrupted, UserError
from tavaal_jax.report import files, records
from tavaal_jax.study import cycle, training
from tavaal_jax.study.parallel import runner
from tavaal_jax.study.trial import TrialHooks

FOLDER = pathlib.Path(__file__).parent
STUDY = FOLDER / "studies" / "on_gpu"
POINTS = ("trials", "speed", "determinism", "pytest")
CONDITIONS = {"balanced": 1, "thinned_100": 100}
METHODS_IN_ORDER = "random,tavaal,coreset,learning_loss_v2,vaal,margin"
MOST_TRIALS = 5
QUICK_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
GUESSES = {"speed": 75.0, "determinism": 60.0, "pytest": 150.0}
"""Seconds of a point's measurements before one was made."""
RESERVE = 10.0
"""Seconds that are left at the end for writing."""


def config_of(arguments: argparse.Namespace) -> ConfigDict:
    """CIFAR-10's config on Table 1 of the paper, up to 5,000 labels."""
    config = tavaal_jax.load_config("cifar10", dtype=arguments.dtype)
    # So that picks are written with their diagnosis, and few checkpoints.
    config.update(cycles=5, parallel="trials", checkpoint_every_steps=10**9)
    config.update(steps_per_call=100, log_every_steps=100, seconds_per_call=0.0)
    if arguments.tiny:
        config.update(cycles=3, initial=32, budget=16, subset=64, epochs=4, batch_size=8)
        config.update(steps_per_call=5, log_every_steps=5, score_batch_size=64)
        config.task.update(widths=(8, 8), blocks=(1, 1))
        config.vae.update(latent=4, widths=(8, 8), image_size=8)
        config.discriminator.hidden = (16, 16)
    return config


class Session:
    """What there is to spend, and the record of what was done."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments, self._begin = arguments, time.monotonic()
        self._end = self._begin + 60 * arguments.minutes - (0 if arguments.tiny else RESERVE)
        self._path = arguments.out / "timings.json"
        self.units: list[dict[str, Any]] = []
        for folder in ([] if arguments.tiny else [STUDY]) + [arguments.out]:
            if (folder / self._path.name).exists():  # Of another day, or cut short.
                text = (folder / self._path.name).read_text(encoding="utf-8")
                self.units = json.loads(text)
        self._mine = len(self.units)

    def left(self) -> float:
        """Seconds until the end."""
        return self._end - time.monotonic()

    def fits(self, seconds: float, what: str) -> bool:
        """Whether something of that length ends in time; else says so."""
        if seconds <= self.left():
            return True
        print(f"not begun: {what} takes {seconds:.0f} s, {self.left():.0f} s left", flush=True)
        return False

    def longest(self, point: str) -> float:
        """Seconds of the longest measurement of a point so far in this run, or a guess."""
        found = [unit["seconds"] for unit in self.units[self._mine :] if unit["point"] == point]
        return max(found, default=0.0 if self.arguments.tiny else GUESSES[point])

    def is_done(self, point: str, name: str) -> bool:
        """Whether a measurement was made by an earlier run."""
        return any(unit["point"] == point and unit["name"] == name for unit in self.units)

    def record(self, point: str, name: str, seconds: float, **more: Any) -> None:
        """Adds a measurement and writes timings.json."""
        unit = {"point": point, "name": name, "seconds": round(seconds, 3), **more}
        self.units.append({**unit, "machine": harness.machine()})
        print(json.dumps(unit), flush=True)
        files.write(self._path, json.dumps(self.units, indent=1) + "\n")


# Trials


class Pace:
    """Times of cycles as they were measured, to tell what the next one takes."""

    def __init__(self, is_tiny: bool):
        self._steps = {"joint": 0.0, "task": 0.0} if is_tiny else {"joint": 0.014, "task": 0.005}
        self._rest, self._compiling = (0.0, 0.0) if is_tiny else (8.0, 30.0)

    def estimate(self, steps: dict[str, int], is_first: bool) -> float:
        """Seconds of a cycle of so many steps; `is_first`: its programs are not compiled yet."""
        training_time = sum(self._steps[stage] * count for stage, count in steps.items())
        return training_time + self._rest + self._compiling * is_first

    def observe(self, log: list[dict[str, Any]], seconds: float, is_first: bool) -> None:
        """Takes in a cycle: its records in metrics.jsonl, and its wall time."""
        expected = 0.0
        for stage in self._steps:
            mine = [record for record in log if record["stage"] == stage]
            ends = [0, *(record["step"] for record in mine)]
            each = [r["seconds"] / (r["step"] - e) for r, e in zip(mine, ends, strict=False)]
            if each:
                # The first record has the compilation.
                self._steps[stage] = float(np.median(each[1:] or each))
                expected += self._steps[stage] * mine[-1]["step"]
        if is_first:
            self._compiling = max(0.0, seconds - expected - self._rest)
        else:
            self._rest = max(0.0, seconds - expected)


class Trials:
    """Trials of the paper's size, cycle by cycle while there is time."""

    def __init__(self, session: Session, workdir: pathlib.Path):
        self._session, self._workdir = session, workdir
        self.config, arguments = config_of(session.arguments), session.arguments
        self._whole = mosaics.dataset(arguments.data, 60 if arguments.tiny else 0)
        self._pace = Pace(arguments.tiny)
        self.pack = Packed(arguments.out, ".csv")
        if not arguments.tiny:
            self.pack.read(STUDY)
        self.pack.read(arguments.out)
        self._runners: dict[str, runner.Runner] = {}
        self._compiled: set[tuple[str, str]] = set()
        self._watch: Callable[..., None] = lambda *line, **event: None
        self._stop_asked = False

    def run(self, methods: list[str]) -> None:
        """The first trial that is not finished, of all methods and conditions."""
        for trial in range(MOST_TRIALS):
            places = [Place(c, method, trial) for c in CONDITIONS for method in methods]
            left = [place for place in places if self.pack.cycles(place) < self.config.cycles]
            if left:
                print(f"trials: {len(left)} of trial {trial} are left", flush=True)
                for place in left:
                    self._run(place)
                return

    def _run(self, place: Place) -> None:
        """Runs a trial until its end, or the last cycle that ends in time."""
        began = self._cycles_before(place)
        if not self._session.fits(self._estimate(place, began), f"{place} cycle {began}"):
            return
        folder = files.trial_folder(self._workdir / place.condition, place.method, place.trial)
        self.pack.give(place, place.method, folder)
        begin, now, self._stop_asked = time.monotonic(), began, False
        since = begin

        def watch(*line: object, **event: Any) -> None:
            """Called after each call to the device: sees when the next cycle has begun."""
            nonlocal now, since
            if line and line[0]:
                print(*line, flush=True)
            if (event.get("cycle") or 0) > now:
                since, now = self._end_cycle(place, folder, now, since), event["cycle"]
                self._stop_asked = not self._session.fits(
                    self._estimate(place, now), f"{place} cycle {now}"
                )

        self._watch, fault = watch, {}
        try:
            self._runner(place.condition).run(place.method, place.trial)
            self._end_cycle(place, folder, now, since)
            now += 1
        except Interrupted:
            pass
        except UserError as error:  # It diverged, or memory is full: the others go on.
            fault = {"fault": str(error)}
        self._take(place, folder)
        name = f"{place.condition} {place.method} trial {place.trial}, cycles {began} to {now - 1}"
        if now > began or fault:
            self._session.record("trials", name, time.monotonic() - begin, **fault)

    def _cycles_before(self, place: Place) -> int:
        """Number of whole cycles, of which there are picks."""
        return len({row["cycle"] for row in self.pack.rows["picks"].get(place, [])})

    def _estimate(self, place: Place, number: int) -> float:
        config, method = self.config, METHODS[place.method]
        labelled = cycle.expected_labelled(config, number)
        steps = {
            stage: training.stage_steps(config, len(self._whole.train_images), labelled, stage)
            for stage in cycle.stage_names(config, method, number)
            if stage in ("task", "joint")
        }
        return self._pace.estimate(steps, (place.condition, place.method) not in self._compiled)

    def _end_cycle(self, place: Place, folder: pathlib.Path, number: int, since: float) -> float:
        """Writes what there is, and takes in what the cycle took; returns the time now."""
        self._take(place, folder)
        now, compiled = time.monotonic(), (place.condition, place.method)
        log = [record for record in records.read_log(folder) if record["cycle"] == number]
        self._pace.observe(log, now - since, compiled not in self._compiled)
        self._compiled.add(compiled)
        return now

    def _take(self, place: Place, folder: pathlib.Path) -> None:
        self.pack.take(place, folder)
        self.pack.write()

    def _runner(self, condition: str) -> runner.Runner:
        if condition not in self._runners:
            ratio, classes = CONDITIONS[condition], tuple(self.config.imbalance.classes)
            dataset = thinned(self._whole, ratio, classes) if ratio > 1 else self._whole
            self._runners[condition] = runner_of(
                self.config, self._workdir / condition, dataset,
                self._track, self._stop,
            )  # fmt: skip
        return self._runners[condition]

    def _track(self, *line: object, **event: Any) -> None:
        self._watch(*line, **event)

    def _stop(self) -> int | None:
        """A signal's number where the next cycle, or this one after all, does not end in time."""
        return signal.SIGTERM if self._stop_asked or self._session.left() < 0 else None


def runner_of(
    config: ConfigDict, folder: pathlib.Path, dataset: Dataset, track: Callable[..., None],
    stop: Callable[[], int | None], on_results: Callable[[], object] = lambda: None,
) -> runner.Runner:  # fmt: skip
    """What runs trials in this process, without figures and page."""
    folder.mkdir(parents=True, exist_ok=True)
    hooks = TrialHooks(track, on_results, stop)
    return runner.Runner(config, folder, dataset, runner.oracle(dataset), hooks)


def trials(session: Session) -> None:
    """Point 1."""
    with tempfile.TemporaryDirectory() as folder:
        Trials(session, pathlib.Path(folder)).run(session.arguments.methods.split(","))


# Speed


class Work(NamedTuple):
    """One comparison with PyTorch."""

    name: str
    peer: str
    """Of `torch_peer.WORK`."""
    ours: Callable[[harness.Programs, int], float]
    """Seconds of a step, or of an image, from a number of steps."""


def _trained(stage: str) -> Callable[[harness.Programs, int], float]:
    return lambda programs, steps: harness.turn(lambda: programs.train(stage, steps)) / steps


def _scored(programs: harness.Programs, steps: int) -> float:
    """A batch's scores."""
    count = steps * programs.config.batch_size
    return harness.turn(lambda: programs.scores(np.arange(count))) / steps


WORKS = (
    Work("joint step", "joint", _trained("joint")),
    Work("task step", "task", _trained("task")),
    Work("VAE step", "reduced", _trained("adversary")),
    Work("scores of a batch", "score", _scored),
)


def matrix_peak(dtype: str, size: int) -> float:
    """GFLOP/s of a product of square matrices with sums in float32, the best of several."""
    x = jnp.ones((size, size), dtype)
    product = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
    harness.turn(lambda: product(x, x))
    return 2e-9 * size**3 / min(harness.seconds_of(lambda: product(x, x)) for _ in range(5))


def speed(session: Session) -> None:
    """Point 2: each work and type is a measurement."""
    tiny = session.arguments.tiny
    batch, steps, rounds = (4, 1, 1) if tiny else (128, 20, 5)
    works = WORKS[1:2] if tiny else WORKS
    for dtype in ("float32",) if tiny else ("bfloat16", "float32"):
        for work in works:
            name = f"{work.name} {dtype}"
            if session.is_done("speed", name):
                continue
            if not session.fits(session.longest("speed"), name):
                return
            begin = time.monotonic()
            found = compare(work, dtype, batch, steps, rounds, ("eager",) if tiny else None)
            peak = matrix_peak(dtype, 512 if tiny else 8192)
            rate = found["gflop"] / found["seconds_each"]["ours"][0]
            more = {"peak_gflops": round(peak), "share_of_peak": round(rate / peak, 3)}
            session.record("speed", name, time.monotonic() - begin, **found, **more)


def compare(
    work: Work, dtype: str, batch: int, steps: int, rounds: int, peers: tuple[str, ...] | None
) -> dict[str, Any]:
    """Seconds of ours and of the peers in turns: median, least, most; floating-point operations."""
    programs = harness.cifar(dtype, 64 * batch, batch_size=batch, score_batch_size=batch)
    config = programs.config
    common = {
        "batch_size": batch, "hidden": len(config.discriminator.hidden),
        "latent": config.vae.latent, "bfloat16": dtype == "bfloat16",
    }  # fmt: skip
    processes = {
        name: harness.Peer(work.peer, **common, compiled=name == "compiled")
        for name in peers or ("eager", "compiled")
    }
    sides: dict[str, Callable[[], float]] = {"ours": lambda: work.ours(programs, steps)}
    sides |= {name: lambda p=p: p(timed=steps) for name, p in processes.items()}
    sides["ours"]()  # Compiles.
    times = harness.interleave(sides, rounds)
    for process in processes.values():
        process.close()
    spread = lambda values: [round(f(values), 6) for f in (np.median, min, max)]
    return {
        "batch": batch, "n": rounds, "gflop": processes["eager"].about["gflop"],
        "torch": processes["eager"].about["torch"],
        "seconds_each": {name: spread(values) for name, values in times.items()},
    }  # fmt: skip


# Determinism


def child(arguments: argparse.Namespace) -> None:
    """Runs methods in a process of its own: to the first accuracy, or two cycles to the end."""
    config = config_of(arguments)
    config.update(cycles=2, trials=1, epochs=min(config.epochs, 100))
    if not arguments.first:  # To be killed, it needs checkpoints.
        config.update(parallel="devices", checkpoint_every_steps=config.log_every_steps)
    dataset = mosaics.dataset(arguments.data, 60 if arguments.tiny else 0)
    asked: list[int] = []
    stop = lambda: asked[-1] if asked else None
    ended = (lambda: asked.append(signal.SIGTERM)) if arguments.first else lambda: None
    for method in arguments.methods.split(","):
        asked.clear()
        ours = runner_of(config, arguments.child, dataset, lambda *line, **event: None, stop, ended)
        with contextlib.suppress(Interrupted):
            ours.run(method, 0)


class Child:
    """A process of `child`, with XLA's deterministic kernels or not."""

    def __init__(self, session: Session, folder: pathlib.Path, methods: str, is_fixed: bool):
        given = session.arguments
        self.folder = folder
        self._command = [
            sys.executable, __file__, f"--child={folder}", f"--data={given.data}",
            f"--out={given.out}", f"--methods={methods}", f"--dtype={given.dtype}",
            *(["--tiny"] if given.tiny else []),
        ]  # fmt: skip
        flags = os.environ.get("XLA_FLAGS", "") + (f" {DETERMINISTIC}" if is_fixed else "")
        self._environment = {**os.environ, "XLA_FLAGS": flags}
        self._longest = max(60.0, session.left())

    def run(self, *flags: str, kill_after_steps: int = 0) -> None:
        """Runs it to the end, or kills it after so many steps of the first cycle."""
        process = subprocess.Popen([*self._command, *flags], env=self._environment)
        begin = time.monotonic()
        while process.poll() is None:
            log = records.read_log(self.folder / "random" / "trial_0")
            if kill_after_steps and log and log[-1]["step"] >= kill_after_steps:
                process.kill()
            if time.monotonic() - begin > self._longest:
                process.kill()
                process.wait()
                raise TimeoutError
            time.sleep(0.05)
        if process.returncode and not kill_after_steps:
            raise ChildProcessError(f"exit code {process.returncode}")

    def seconds_a_step(self, method: str) -> float | None:
        """Median of the records but the first, which has the compilation."""
        log = records.read_log(self.folder / method / "trial_0")
        mine = [record for record in log if record["stage"] in ("task", "joint")][1:]
        each = [record["seconds"] for record in mine]
        steps = [b["step"] - a["step"] for a, b in itertools.pairwise(mine)]
        found = [s / n for s, n in zip(each[1:], steps, strict=True) if n > 0]
        return round(float(np.median(found)), 6) if found else None

    def files(self) -> list[bytes]:
        """The trial's picks.csv and results.csv."""
        folder = self.folder / "random" / "trial_0"
        return [(folder / name).read_bytes() for name in ("picks.csv", "results.csv")]


def determinism(session: Session) -> None:
    """Point 3."""
    with tempfile.TemporaryDirectory() as folder:
        for name, measure in _determinism(session, pathlib.Path(folder)):
            if session.is_done("determinism", name):
                continue
            if not session.fits(session.longest("determinism"), name):
                return
            begin = time.monotonic()
            try:
                found = measure()
            except (TimeoutError, ChildProcessError, OSError) as error:
                found = {"fault": f"{type(error).__name__}: {error}"}
            session.record("determinism", name, time.monotonic() - begin, **found)


def _determinism(
    session: Session, folder: pathlib.Path
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Its measurements."""
    methods = "random,coreset" if session.arguments.tiny else "random,coreset,vaal"

    def before_picks(is_fixed: bool) -> dict[str, Any]:
        one = Child(session, folder / f"first_{is_fixed}", methods, is_fixed)
        one.run("--first")
        rows, _ = records.all_results(one.folder)
        return {
            "accuracy": {row["method"]: row["value"] for row in rows},
            "seconds a step": {name: one.seconds_a_step(name) for name in methods.split(",")},
        }

    def killed() -> dict[str, Any]:
        whole = Child(session, folder / "whole", "random", True)
        cut = Child(session, folder / "cut", "random", True)
        whole.run()
        cut.run(kill_after_steps=config_of(session.arguments).log_every_steps)
        cut.run()
        return {"same bytes": whole.files() == cut.files()}

    yield "before the first pick, deterministic", lambda: before_picks(True)
    yield "before the first pick, default", lambda: before_picks(False)
    yield "killed and resumed, deterministic", killed


# Tests


def run_pytest(session: Session) -> None:
    """Point 4: the quick tests; what failed."""
    name = "quick tests"
    if session.is_done("pytest", name) or not session.fits(session.longest("pytest"), name):
        return
    tests = ["tests/test_losses.py"] if session.arguments.tiny else ["tests"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    platform = "cuda" if jax.default_backend() == "gpu" else jax.default_backend()
    environment = {**os.environ, "JAX_PLATFORMS": platform}
    environment.pop("XLA_FLAGS", None)
    begin = time.monotonic()
    try:
        done = subprocess.run(
            [*command, *tests], cwd=FOLDER.parent, env=environment, capture_output=True,
            encoding="utf-8", check=False, timeout=max(30.0, session.left()),
        )  # fmt: skip
        output, ended = done.stdout + done.stderr, True
    except subprocess.TimeoutExpired as error:
        found = error.stdout or b""  # Bytes, also where text was asked for.
        output = found if isinstance(found, str) else found.decode(errors="replace")
        ended = False
    lines = output.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    more = {"ended": ended, "failed": failed[:100], "last": lines[-1:]}
    session.record("pytest", name, time.monotonic() - begin, **more)


def main() -> None:
    """Command line."""
    allocator.restart_with_huge_pages()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True, help="see mosaics.py")
    parser.add_argument("--out", type=pathlib.Path, default=os.environ.get("OUT", "out"))
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--points", default=",".join(POINTS), help="in this order")
    parser.add_argument("--methods", help=f"of the trials, in order; default {METHODS_IN_ORDER}")
    parser.add_argument("--dtype", default="float32", help="of the trials; or bfloat16")
    parser.add_argument("--tiny", action="store_true", help="tiny networks and data, on a CPU")
    parser.add_argument("--child", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tiny:  # Compiling is most of the time.
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILATION}"
    arguments.methods = arguments.methods or (
        "random,tavaal" if arguments.tiny else METHODS_IN_ORDER
    )
    compilation.keep_in_cache()
    if arguments.child is not None:
        child(arguments)
        return
    arguments.out = pathlib.Path(arguments.out)
    arguments.out.mkdir(parents=True, exist_ok=True)
    session = Session(arguments)
    points = {
        "trials": trials, "speed": speed, "determinism": determinism, "pytest": run_pytest,
    }  # fmt: skip
    for name in arguments.points.split(","):
        try:
            points[name](session)
        except (Exception, SystemExit) as error:  # The points after it are worth their time.
            traceback.print_exc()
            session.record(name, "fault", 0.0, fault=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
