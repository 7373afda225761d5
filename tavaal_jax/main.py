"""Command line: python -m tavaal_jax.main --config=configs/digits.py [--workdir=runs/digits]."""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from tavaal_jax import allocator
from tavaal_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file in configs/; keys can be overridden."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the study; default: runs/<config's name>."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the other processes of a pod or cluster."
)


def _parse(argv):
    """Reads the flags; raises UserError for anything wrong with them."""
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.lock()  # A config that could not be loaded raises here.
    except Exception as error:  # Whatever a config file or an override can raise.
        text = " ".join(str(error.args[0] if error.args else error).split())
        raise UserError(f"{type(error).__name__} while reading the flags: {text}") from error
    if len(rest) > 1:
        raise UserError(f"unknown argument {rest[1]!r}: flags are written --name=value")
    if _CONFIG.value is None:
        raise UserError("--config is missing: give a file, for example --config=configs/digits.py")


def main(argv: list[str]) -> int:
    """Runs the study that `argv` describes; returns the exit code."""
    from tavaal_jax import compilation, parallel, study
    from tavaal_jax.signals import Interrupted

    try:
        _parse(argv)
        # TFDS and Orbax warn of what is no news here: no OpenCV, a save that was cut short.
        logging.set_verbosity(logging.ERROR)
        if _DISTRIBUTED.value:
            parallel.initialize()
        compilation.keep_in_cache()
        name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
        folder = pathlib.Path(_WORKDIR.value or f"runs/{name}").expanduser()
        study.run(_CONFIG.value, folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by SIGINT; the same command continues", file=sys.stderr)
        return 130
    except Interrupted as error:
        print(f"{error}; everything is saved, the same command continues", file=sys.stderr)
        return 128 + error.number
    return 0


if __name__ == "__main__":
    allocator.restart_with_huge_pages()
    app.define_help_flags()
    sys.exit(main(sys.argv))
