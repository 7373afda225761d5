"""Draws a study's figures again: python -m tavaal_jax.report.plots runs/digits [--trial=0]."""

import argparse
import pathlib
import sys

from tavaal_jax.environment import forgive_output
from tavaal_jax.errors import UserError
from tavaal_jax.report.plots import figures


def main() -> int:
    """Command line; returns the exit code."""
    forgive_output()
    parser = argparse.ArgumentParser(prog="python -m tavaal_jax.report.plots", description=__doc__)
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument(
        "--trial", type=int, default=-1, help="of figures of one choice; -1: the first"
    )
    parser.add_argument("--cycle", type=int, default=-1, help="likewise; -1: the last one")
    arguments = parser.parse_args()
    try:
        drawn = figures.draw(arguments.workdir, None, arguments.trial, arguments.cycle)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # Such as a folder that Matplotlib cannot write to.
        print(f"error: nothing can be drawn ({' '.join(str(error).split())})", file=sys.stderr)
        return 2
    for name in drawn:
        print(f"{arguments.workdir / name}: {figures.FIGURES[name]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
