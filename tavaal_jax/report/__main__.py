"""Writes a study's report.html again: python -m tavaal_jax.report runs/digits."""

import argparse
import pathlib
import sys

from tavaal_jax.environment import forgive_output
from tavaal_jax.errors import UserError
from tavaal_jax.report import page


def main() -> int:
    """Command line; returns the exit code."""
    forgive_output()
    parser = argparse.ArgumentParser(prog="python -m tavaal_jax.report", description=__doc__)
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--data-dir", help="of prepared data sets; the study's own by default")
    arguments = parser.parse_args()
    try:
        name = page.write(arguments.workdir, data_dir=arguments.data_dir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(arguments.workdir / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
