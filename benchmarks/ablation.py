"""Which parts of TA-VAAL matter: variants of it beside plain methods, paired by trial.

python benchmarks/ablation.py run digits --trials=20 fills the machine with studies, a process per
core (or one, with --processes=1), in runs/ablation/digits/<cell>/trials_<first>; the same command
continues what was interrupted, and with more trials adds some.
python benchmarks/ablation.py report digits writes tables and figure from what is there.
"""

import argparse
import os
import pathlib
import queue
import subprocess
import sys
import threading

FOLDER = pathlib.Path(__file__).parent
RANKED = "learning_loss,learning_loss_v2,vaal_learning_loss,tavaal"
TOLD = "vaal_learning_loss,tavaal"

LETTER = {"ranker.after": "freeze", "ranker.until_fraction": 0.8}
SECTION_7_2 = {"ranker.after": "detach", "ranker.until_fraction": 0.6}
NEVER = {"ranker.after": "detach", "ranker.until_fraction": 0.0}
RAW = {"rank_to_discriminator": "raw"}
NO_D, NO_DECODER = {"rank_to_discriminator": "none"}, {"rank_to_decoder": "none"}
RELEASED = {**SECTION_7_2, "schedule": "two_phase", "vae.unlabelled": "subset"}

CELLS = {
    # name: (overridden keys, methods). What the keys of a cell do not touch is in "detach_0.6".
    "detach_0.6": (SECTION_7_2, f"random,coreset,vaal,{RANKED}"),
    "freeze_0.8": (LETTER, RANKED),
    "detach_0": (NEVER, RANKED),
    "detach_0.6_raw": ({**SECTION_7_2, **RAW}, TOLD),
    "freeze_0.8_raw": ({**LETTER, **RAW}, TOLD),
    "detach_0_raw": ({**NEVER, **RAW}, TOLD),
    "decoder_only": ({**SECTION_7_2, **NO_D}, "tavaal"),
    "discriminator_only": ({**SECTION_7_2, **NO_DECODER}, "tavaal"),
    "discriminator_only_raw": ({**SECTION_7_2, **NO_DECODER, **RAW}, "tavaal"),
    "no_rank": ({**SECTION_7_2, **NO_D, **NO_DECODER}, "tavaal"),
    "two_phase": (RELEASED, f"vaal,{TOLD}"),
    "two_phase_raw": ({**RELEASED, **RAW}, TOLD),
}
"""Ranker x rank given to D x schedule, and the rank hidden from decoder or D."""
BASE = "detach_0.6"


def jobs(arguments: argparse.Namespace) -> list[tuple[str, int, int]]:
    """(cell, first trial, number after the last), such that all cells grow at the same pace."""
    cells = arguments.cells.split(",") if arguments.cells else list(CELLS)
    return [
        (cell, first, min(first + arguments.block, arguments.trials))
        for first in range(0, arguments.trials, arguments.block)
        for cell in cells
    ]


def command(arguments: argparse.Namespace, cell: str, first: int, last: int) -> list[str]:
    """Of one study."""
    keys, methods = CELLS[cell]
    changes = {**keys, "methods": methods, "first_trial": first, "trials": last}
    return [
        sys.executable, "-m", "tavaal_jax.main", f"--config=configs/{arguments.config}.py",
        f"--workdir={arguments.workdir / arguments.config / cell / f'trials_{first}'}",
        *(f"--config.{name}={value}" for name, value in changes.items()),
    ]  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """All studies that are not finished, each process on a core of its own."""
    todo: queue.Queue = queue.Queue()
    for job in jobs(arguments):
        todo.put(job)
    cores = sorted(os.sched_getaffinity(0))
    count = arguments.processes or len(cores)
    failed = []

    def work(number: int) -> None:
        mine = set(cores[number::count])
        while True:
            try:
                job = todo.get_nowait()
            except queue.Empty:
                return
            done = subprocess.run(
                command(arguments, *job), check=False, cwd=FOLDER.parent, capture_output=True, text=True,
                preexec_fn=lambda: os.sched_setaffinity(0, mine),
            )  # fmt: skip
            print(*job, "done" if not done.returncode else f"failed:\n{done.stderr}", flush=True)
            if done.returncode:
                failed.append(job)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return 1 if failed else 0


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("config", help="name of a file in configs/, such as digits")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/ablation"))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--block", type=int, default=5, help="trials of one study's process")
    parser.add_argument("--processes", type=int, default=0, help="0: one per core")
    parser.add_argument("--cells", default="", help=f"comma-separated, of {', '.join(CELLS)}")
    arguments = parser.parse_args()
    return run(arguments) if arguments.what == "run" else report(arguments)


if __name__ == "__main__":
    sys.exit(main())
