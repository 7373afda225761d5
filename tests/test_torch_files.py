"""PyTorch's files without PyTorch: equal tensors, and nothing of a file is executed."""

import importlib.metadata
import io
import pathlib
import pickle
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from tavaal_jax.errors import UserError
from tavaal_jax.models import torch_files, weights

RANDOM = np.random.default_rng(0)
GIVEN = {
    "conv.weight": RANDOM.standard_normal((4, 3, 2, 2)).astype(np.float32),
    "bn.num_batches_tracked": np.array(17),
    "half": RANDOM.standard_normal(5).astype(np.float16),
    "double": RANDOM.standard_normal((2, 1)),
    "empty": np.zeros((0, 3), np.float32),
}
STORAGES = {
    "<f4": "FloatStorage", "<i8": "LongStorage", "<f2": "HalfStorage", "<f8": "DoubleStorage",
}  # fmt: skip


class Storage:
    """A storage in a file that is written."""

    def __init__(self, numbers):
        self.numbers = np.ascontiguousarray(numbers).ravel()
        self.kind = getattr(sys.modules["torch"], STORAGES[self.numbers.dtype.str])


class Tensor:
    """A view of a storage."""

    def __init__(self, storage, offset, shape, strides):
        self.parts = storage, offset, shape, strides, False, OrderedDict()

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.parts


def tensor(array):
    array = np.array(array, order="C")
    strides = tuple(n // array.itemsize for n in array.strides)
    return Tensor(Storage(array), 0, array.shape, strides)


@pytest.fixture(autouse=True)
def _pytorch(monkeypatch):
    """Modules of PyTorch's names, so that pickles can name what is in them."""
    module, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(module, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*parts):
        raise AssertionError(parts)

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    for one in (module, utils):
        monkeypatch.setitem(sys.modules, one.__name__, one)


def pickled(tree):
    """A pickle and the storages that it refers to."""
    storages = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            if not isinstance(thing, Storage):
                return None
            if thing not in storages:
                storages.append(thing)
            return "storage", thing.kind, str(storages.index(thing)), "cpu", thing.numbers.size

    file = io.BytesIO()
    Pickler(file, 2).dump(tree)
    return file.getvalue(), storages


def write_stream(path, tree):
    data, storages = pickled(tree)
    about = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    first = (torch_files._MAGIC, torch_files._PROTOCOL, about)
    parts = [pickle.dumps(x, 2) for x in first]
    parts += [data, pickle.dumps([str(n) for n in range(len(storages))], 2)]
    for one in storages:
        parts += [one.numbers.size.to_bytes(8, "little"), one.numbers.tobytes()]
    path.write_bytes(b"".join(parts))


def write_zip(path, tree, order="little"):
    data, storages = pickled(tree)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", data)
        archive.writestr("model/byteorder", order)
        for number, one in enumerate(storages):
            archive.writestr(f"model/data/{number}", one.numbers.tobytes())


WRITERS = {"stream": write_stream, "zip": write_zip}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    """Writes a tree in one of the two formats and returns the file."""

    def written(tree, **options):
        path = tmp_path / "model.pth"
        WRITERS[request.param](path, tree, **options)
        return path

    return written


def assert_equal(found, given):
    assert list(found) == list(given)
    for name, array in given.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def read(path):
    with path.open("rb") as file:
        return torch_files.read(file)


def refused(path):
    with pytest.raises(UserError) as error:
        weights.read(str(path))
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(f"task.pretrained is {path}")
    return text


def test_tensors_are_read_as_they_were_written(write):
    tree = OrderedDict((name, tensor(x)) for name, x in GIVEN.items())
    tree._metadata = OrderedDict(version=1)
    assert_equal(read(write(tree)), GIVEN)
    assert_equal(weights.read(str(write({"state_dict": tree, "epoch": 3}))), GIVEN)
    assert_equal(read(write({"model": tree, "optimizer": [{}]})), GIVEN)


def test_tensors_may_share_a_storage_and_be_transposed(write):
    numbers = np.arange(12, dtype=np.float32)
    storage = Storage(numbers)
    tree = {"a": Tensor(storage, 2, (5, 2), (1, 5)), "b": Tensor(storage, 0, (3,), (1,))}
    found = read(write(tree))
    np.testing.assert_array_equal(found["a"], numbers[2:].reshape(2, 5).T)
    np.testing.assert_array_equal(found["b"], numbers[:3])
    found["b"][0] = 7
    assert found["a"].flags.owndata


class Evil:
    """Would write a file if it were loaded by `pickle.load`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_nothing_that_a_file_names_is_run(write, tmp_path):
    ran = tmp_path / "ran"
    text = refused(write({"a": tensor(GIVEN["half"]), "b": Evil(ran)}))
    assert not ran.exists()
    assert "it names __builtin__.getattr, which is no part of a file of tensors and is not" in text
    assert "run: save the model's state_dict() alone" in text


@pytest.mark.parametrize("name", ["builtins.eval", "os.system", "torch.load", "torch._utils.os"])
def test_a_name_is_refused_before_it_is_looked_up(name, tmp_path):
    module, _, function = name.rpartition(".")
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", f"c{module}\n{function}\n(S'1'\ntR.".encode())
    assert f"(it names {name}, which is no part of a file of tensors" in refused(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_file_that_is_cut_is_one_line(share, write):
    path = write({name: tensor(x) for name, x in GIVEN.items()})
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "which cannot be read (" in refused(path)


def test_a_file_without_tensors_is_one_line(write):
    for tree in ([tensor(GIVEN["half"])], {"state_dict": {}}, {"a": 1}, 3):
        assert "it holds no tensors by name: give a state_dict" in refused(write(tree))


def test_views_beyond_a_storage_are_refused(write):
    storage = Storage(np.zeros(6, np.float32))
    for view in (
        (0, (7,), (1,)), (5, (2,), (1,)), (0, (2,), (-1,)), (-1, (2,), (1,)),
        (0, (10**12,), (0,)), (0, (2, 4), (1, 1)), (0, (-1, -1), (1, 1)),
    ):  # fmt: skip
        text = refused(write({"a": Tensor(storage, *view)}))
        assert "a tensor reaches beyond its storage" in text


def test_numbers_of_other_machines_are_refused(tmp_path):
    path = tmp_path / "model.pth"
    write_zip(path, {"a": tensor(GIVEN["half"])}, order="big")
    assert "its numbers are not little-endian" in refused(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "it is no file of PyTorch's" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "text")
    assert "it is no file of PyTorch's" in refused(path)


def test_a_storage_that_unfolds_to_more_is_refused(tmp_path):
    data, _ = pickled({"a": tensor(GIVEN["half"])})
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", data)
        archive.writestr("model/data/0", bytes(10**6))
    assert "model/data/0 has not the 10 bytes it should" in refused(path)


def built(name, state):
    """An archive that sets attributes of what it names: `(None, state)` of a tuple of slots."""
    module, _, last = name.rpartition(".")
    named = "ctorch._utils\n_rebuild_tensor_v2\n"
    return f"c{module}\n{last}\n(N(S'{state}'\n{named}dtb.".encode()


@pytest.mark.parametrize(
    ("name", "attribute"),
    [("torch.nn.parameter.Parameter", "__new__"), ("torch._utils._rebuild_tensor_v2", "__call__"),
     ("torch._utils._rebuild_tensor_v2", "_function"), ("torch._utils._rebuild_parameter", "a"),
     ("collections.OrderedDict", "__init__"), ("torch.FloatStorage", "dtype")],
)  # fmt: skip
def test_a_file_changes_nothing_for_the_next_one(name, attribute, tmp_path):
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", built(name, attribute))
    refused(path)
    tree = OrderedDict((name, tensor(x)) for name, x in GIVEN.items())
    write_zip(path, tree)
    assert_equal(read(path), GIVEN)
    parameter = b"}S'a'\nctorch.nn.parameter\nParameter\n(ctorch._utils\n_rebuild_tensor_v2\n("
    storage = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI3\ntQ"
    with zipfile.ZipFile(path, "w") as archive:
        data = b"\x80\x02" + parameter + storage + b"I0\n(I3\nt(I1\ntI00\nNtRt\x81s."
        archive.writestr("m/data.pkl", data)
        archive.writestr("m/data/0", np.arange(3, dtype=np.float32).tobytes())
    np.testing.assert_array_equal(read(path)["a"], [0, 1, 2])


def test_a_storage_that_is_a_part_of_another_is_refused(tmp_path, monkeypatch):
    storage = Storage(np.zeros(6, np.float32))
    tree = {"a": Tensor(storage, 0, (6,), (1,))}
    write_stream(tmp_path / "whole.pth", tree)
    assert len(read(tmp_path / "whole.pth")["a"]) == 6
    data, _ = pickled(tree)
    end = data.index(b"tq", data.index(b"cpu"))  # The tuple of the storage's five fields.
    for view, is_fine in ((b"N", True), (b"U\x01kK\x02K\x03\x87", False)):
        changed = data[:end] + view + data[end:]
        path = tmp_path / "model.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/data.pkl", changed)
            archive.writestr("m/data/0", bytes(24))
        if is_fine:
            assert len(read(path)["a"]) == 6
        else:
            assert "storage 0 is a part of another one: save tensors by their clone()" in refused(
                path
            )


def test_views_of_one_storage_read_it_once_and_are_bounded(tmp_path, monkeypatch):
    storage = Storage(np.arange(100_000, dtype=np.float32))
    path, reads = tmp_path / "model.pth", []
    write_zip(path, {f"t{n}": Tensor(storage, 0, (100_000,), (1,)) for n in range(20)})
    plain = zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *a: (reads.append(a[1]), plain(*a))[1])
    assert len(read(path)) == 20
    assert reads == ["model/data/0"]
    write_zip(path, {f"t{n}": Tensor(storage, 0, (100_000,), (1,)) for n in range(100)})
    assert "its tensors are 40,000,000 bytes, and the file" in refused(path)


BY_PYTORCH = """
import pathlib, sys
import numpy as np
torch = __import__("torch")
folder = pathlib.Path(sys.argv[1])
given = {name: torch.from_numpy(np.array(x)) for name, x in np.load(folder / "given.npz").items()}
given["parameter"] = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
given["bfloat16"] = torch.full((3,), 2.5, dtype=torch.bfloat16)
for name, zipped in (("zip", True), ("stream", False)):
    path = folder / f"{name}.pth"
    torch.save({"state_dict": given}, path, _use_new_zipfile_serialization=zipped)
torch.save({"weight": pathlib.PurePosixPath("a")}, folder / "other.pth")
"""


@pytest.mark.slow
def test_files_that_pytorch_itself_writes(tmp_path):
    if importlib.metadata.packages_distributions().get("torch") is None:
        pytest.skip("needs torch")
    np.savez(tmp_path / "given.npz", **GIVEN)
    subprocess.run([sys.executable, "-c", BY_PYTORCH, tmp_path], check=True)
    more = {
        "parameter": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "bfloat16": np.full(3, 2.5, np.float32),
    }
    for name in ("zip", "stream"):
        assert_equal(weights.read(str(tmp_path / f"{name}.pth")), {**GIVEN, **more})
    assert "it names pathlib" in refused(tmp_path / "other.pth")
