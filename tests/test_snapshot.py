"""The pool of images and the verdicts on them."""

import pathlib

from tavaal_jax.labelling.images.inventory import Image
from tavaal_jax.labelling.labels.consensus import Consensus, Verdict
from tavaal_jax.labelling.snapshot import Snapshot


def verdict(kind):
    return Verdict(kind, "cat" if kind == "label" else "", "anna", "labels/a.csv", ())


def test_labelled_images_stand_in_the_order_of_the_pool():
    """Not in that of a set of texts, which changes with every start of Python."""
    kinds = ("label", "bad", "label", None, "label", "label", "unsure", "label")
    names = [f"i{29 * k % 97:016x}" for k in range(len(kinds))]
    status = ["ok"] * len(names)
    status[4] = "missing"
    images = [Image(n, f"{n}.png", s, 8, 8, "RGB") for n, s in zip(names, status, strict=True)]
    images.append(Image(f"{names[0]}", "copy.png", f"duplicate_of:{names[0]}", 8, 8, "RGB"))
    verdicts = {n: verdict(kind) for n, kind in zip(names, kinds, strict=True) if kind}
    now = Snapshot(
        tuple(images), Consensus(verdicts, (), ("cat",)), {}, frozenset(), pathlib.Path(), None,
        {}, None, (),
    )  # fmt: skip
    assert now.labelled == [names[0], names[2], names[5], names[7]]
