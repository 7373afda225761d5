"""Debian's Fashion-MNIST files, made the official ones again."""

import gzip
import hashlib
import struct

import pytest

from tavaal_jax.data.sets import debian_fashion_mnist
from tavaal_jax.errors import UserError


def stripped(content, mtime=99):
    """A gzip file as Debian has it: without a name, with another time."""
    official = gzip.compress(content, mtime=5)
    return official[:4] + struct.pack("<L", mtime) + official[8:]


def test_debian_files_get_their_header_back():
    restored = debian_fashion_mnist.with_header(stripped(b"pixels"), "name", 5)
    assert gzip.decompress(restored) == b"pixels"
    assert restored[3] == 8
    assert restored[4:8] == struct.pack("<L", 5)
    assert restored[10:15] == b"name\0"


def test_files_that_are_not_the_official_ones_are_refused(tmp_path):
    with pytest.raises(UserError, match="is missing: apt-get install"):
        debian_fashion_mnist.restore(tmp_path, tmp_path / "data")
    for name in debian_fashion_mnist._OFFICIAL:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(UserError, match="does not give the official"):
        debian_fashion_mnist.restore(tmp_path, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.gz"))


def test_all_four_files_are_put_where_tfds_looks_for_them(tmp_path, monkeypatch):
    official = {}
    for number, name in enumerate(debian_fashion_mnist._OFFICIAL):
        (tmp_path / f"{name}.gz").write_bytes(stripped(b"%d" % number))
        restored = debian_fashion_mnist.with_header(stripped(b"%d" % number), name, number)
        official[name] = (number, hashlib.sha256(restored).hexdigest())
    monkeypatch.setattr(debian_fashion_mnist, "_OFFICIAL", official)
    manual = debian_fashion_mnist.restore(tmp_path, tmp_path / "data")
    assert manual == tmp_path / "data" / "downloads" / "manual"
    for number, name in enumerate(official):
        assert gzip.decompress((manual / f"{name}.gz").read_bytes()) == b"%d" % number
