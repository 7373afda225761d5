"""Claim: with several trials the stop hint's error is smaller than that of simple predictions.

    python benchmarks/stop_hint.py [results.csv ...]

Every curve of every study in studies/ is cut after each cycle from the third on, and the hint's
prediction of the next gain is compared with the measured one: with all trials together, and with
each trial as if it were the only one. Two predictions without a model are shown beside it: the same
gain as the last time, and none.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from tavaal_jax.report import hint, records, statistics

STUDIES = pathlib.Path(__file__).parent / "studies"


def checked(curve: statistics.Curve) -> list[tuple[hint.Forecast, float]]:
    """Hint and what was measured instead, for each prefix of a curve."""
    labelled = sorted(curve)
    found = []
    for count in range(hint.LEAST, len(labelled)):
        said = hint.forecast({n: curve[n] for n in labelled[:count]})
        both = [curve[n] for n in labelled[count - 1 : count + 1]]
        now, then = (
            np.mean([at[t] for t in sorted(set.intersection(*map(set, both)))]) for at in both
        )
        if said is not None and said.more == labelled[count] - labelled[count - 1]:
            found.append((said, float(then - now)))
    return found


def row(name: str, pairs: list[tuple[hint.Forecast, float]]) -> str:
    """A row of the table."""
    said, brought = [s for s, _ in pairs], np.array([b for _, b in pairs])
    miss = lambda guesses: np.mean(np.abs(np.array(guesses) - brought))
    inside = np.mean([s.low <= b <= s.high for s, b in pairs])
    width = np.mean([s.high - s.low for s in said])
    bias = np.mean([s.gain for s in said] - brought)
    return (
        f"| {name} | {len(pairs)} | {brought.mean():+.4f} | {miss([s.gain for s in said]):.4f} |"
        f" {bias:+.4f} | {miss([s.last for s in said]):.4f} | {miss(np.zeros(len(pairs))):.4f} |"
        f" {inside:.0%} | {width:.3f} |"
    )


def main() -> int:
    """Command line; prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="*", type=pathlib.Path, help="of studies/ by default")
    print("\n".join(table(parser.parse_args().results)))
    return 0


def table(files: Sequence[pathlib.Path] = ()) -> list[str]:
    """Lines of the table; of all studies if no results.csv are given."""
    lines = [
        "| study | hints | mean gain | error of the hint | its bias | error of last gain |"
        " error of no gain | inside 95 % | width of the interval |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    together, alone = [], []
    for file in files or sorted(STUDIES.rglob("results.csv")):
        rows = records.read_results(file.parent)
        all_of, single = [], []
        for curve in statistics.curves(rows, rows[0]["metric"]).values():
            all_of += checked(curve)
            for trial in next(iter(curve.values())):
                one = {n: {trial: v[trial]} for n, v in curve.items() if trial in v}
                single += checked(one)
        name = file.parent.relative_to(STUDIES) if STUDIES in file.parents else file.parent
        lines += [row(f"{name}, all trials", all_of), row(f"{name}, one trial", single)]
        together, alone = together + all_of, alone + single
    return [*lines, row("all, all trials", together), row("all, one trial", alone)]


if __name__ == "__main__":
    sys.exit(main())
