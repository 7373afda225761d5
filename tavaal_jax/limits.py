"""What a key's value may be; what to give instead, where it is something else."""

import difflib
from collections.abc import Callable
from typing import Any

Limit = Callable[[Any], str | None]
"""What to give instead of a value that breaks it; None for one that does not."""


def one_of(*choices: Any) -> Limit:
    """Equal to one of them; the nearest is named first."""

    def limit(value: Any) -> str | None:
        if value in choices:
            return None
        names = [str(choice) or '""' for choice in choices]
        near = difflib.get_close_matches(str(value), names, n=1)
        hint = f"{near[0]}, or else " if near else ""
        return f"{hint}one of {', '.join(names)}"

    return limit


def at_least(least: float) -> Limit:
    """Not smaller."""
    return lambda value: None if value >= least else f"at least {least}"


def amounts(value: Any) -> str | None:
    """Empty, or positive amounts by name, as in "GPU=1,CPU=4"."""
    parts = [part.partition("=") for part in value.split(",")] if value else []
    try:
        fits = all(name.strip() and float(amount) > 0 for name, _, amount in parts)
    except ValueError:
        fits = False
    return None if fits else 'nothing, or amounts such as "GPU=1" or "CPU=4"'


def positive(value: Any) -> str | None:
    """More than 0."""
    return None if value > 0 else "more than 0"


def fraction(value: Any) -> str | None:
    """0 to 1, both allowed."""
    return None if 0 <= value <= 1 else "a fraction between 0 and 1"


def share(value: Any) -> str | None:
    """More than 0, at most 1."""
    return None if 0 < value <= 1 else "a fraction, more than 0 and at most 1"


def rate(value: Any) -> str | None:
    """0 to less than 1."""
    return None if 0 <= value < 1 else "0 to less than 1"


def whole(value: Any) -> str | None:
    """A sequence of whole numbers."""
    return None if all(type(number) is int for number in value) else "whole numbers"


def widths(value: Any) -> str | None:
    """A sequence of positive whole numbers."""
    return whole(value) or (None if min(value, default=0) > 0 else "one or more positive widths")


def strides(value: Any) -> str | None:
    """Four strides, of DRN's first four levels."""
    fits = len(value) == 4 and all(stride in (1, 2) for stride in value)
    return None if fits else "four strides, each of them 1 or 2"


def texts(value: Any) -> str | None:
    """A sequence of texts, not one text."""
    fits = not isinstance(value, str) and all(isinstance(text, str) for text in value)
    return None if fits else 'texts, such as ("cat", "dog")'


def classes(value: Any) -> str | None:
    """Names of classes; `cat,dog` on a command line arrives as one name."""
    is_one = len(value) == 1 and isinstance(value[0], str) and "," in value[0]
    return "\"('cat', 'dog')\", with both kinds of quotes" if is_one else texts(value)


METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
"""Metrics of a class per image."""


def metric_names(value: Any) -> str | None:
    """Comma-separated names of metrics, accuracy among them."""
    names = value.split(",")
    fits = set(names) <= set(METRICS) and len(set(names)) == len(names) and "accuracy" in names
    return None if fits else f"accuracy, and what you want of {', '.join(METRICS[1:])}, each once"


def low_high(value: Any) -> str | None:
    """Empty, or two increasing numbers."""
    fits = len(value) in (0, 2) and not numbers(value) and list(value) == sorted(set(value))
    return None if fits else "nothing, or two numbers, the lower one first"


def numbers(value: Any) -> str | None:
    """A sequence of numbers."""
    return None if all(isinstance(number, int | float) for number in value) else "numbers"


def sides(value: Any) -> str | None:
    """Empty, or height and width in pixels."""
    fits = len(value) in (0, 2) and not whole(value) and min(value, default=8) >= 8
    return None if fits else "nothing, or a height and a width, each 8 or more"


def byte(value: Any) -> str | None:
    """A value of 8 bits."""
    return None if value in range(256) else "0 to 255"


def seed(value: Any) -> str | None:
    """Where JAX's keys and NumPy's generators agree: 31 bits."""
    return None if 0 <= value < 2**31 else f"0 to less than {2**31}"


def image_size(value: Any) -> str | None:
    """A power of two, which the VAE halves down to 4; 0: to be chosen."""
    return None if value == 0 or (value >= 4 and not value & (value - 1)) else (
        "0 or a power of two from 4 upwards"
    )  # fmt: skip
