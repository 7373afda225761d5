"""Tensors of PyTorch's .pth files, read without executing anything that is in them.

Such a file is a pickle, which can name any function to be called while it is read. Here only the
names are known that a dictionary of tensors is made of; a file with any other is refused. Both
formats are read: the zip archive, and the stream that PyTorch wrote before version 1.6.
"""

import collections
import math
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_TREES = ("state_dict", "model")
"""Under these names a checkpoint has the tensors beside other things."""
_MOST_VIEWS = 64  # times that tensors, which may be views of the same numbers, are their file
_MOST_PICKLE = 2**28  # bytes of the pickle in an archive, however little it takes there


class _Kind(NamedTuple):
    """A type of storage: how its numbers stand in the file."""

    dtype: str
    bfloat16: bool = False


class _Storage(NamedTuple):
    """Numbers of a file that tensors are views of."""

    kind: _Kind
    key: str
    length: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.length * np.dtype(self.kind.dtype).itemsize

    def numbers(self, data: bytes) -> np.ndarray:
        """The values; bfloat16 as float32, of which it is the upper half."""
        if len(data) != self.size:
            raise ValueError(f"it is cut: storage {self.key} has {len(data)} of {self.size} bytes")
        found = np.frombuffer(data, self.kind.dtype)
        return (found.astype("<u4") << 16).view("<f4") if self.kind.bfloat16 else found


class _Tensor(NamedTuple):
    """A view of a storage, before that is read."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __setstate__(self, state: object) -> None:
        """Ignores what a parameter knows beside its numbers."""

    def array(self, numbers: np.ndarray) -> np.ndarray:
        """The tensor in an array of its own; ValueError where it reaches beyond its storage."""
        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, numbers.dtype)
        last = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        begins, ends = self.offset, self.offset + last + 1
        wrong = min((*self.shape, *self.strides, begins), default=0) < 0 or ends > len(numbers)
        if wrong or math.prod(self.shape) > len(numbers):
            raise ValueError("a tensor reaches beyond its storage")
        strides = [stride * numbers.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(numbers[begins:], self.shape, strides).copy()


_Bytes = Callable[[_Storage], bytes]
"""What the file has for a storage."""


def read(file: BinaryIO) -> dict[str, np.ndarray]:
    """Tensors by name of an open file, of a checkpoint those of the model.

    Raises ValueError for a file without such, with a name that is not known, or damaged; a damaged
    one can raise other errors, too.
    """
    tree, data = _zip(file) if file.read(4) == b"PK\x03\x04" else _legacy(file)
    for name in _TREES:
        if isinstance(tree, Mapping) and isinstance(tree.get(name), Mapping):
            tree = tree[name]
    named = tree.items() if isinstance(tree, Mapping) else ()
    tensors = {str(name): x for name, x in named if isinstance(x, _Tensor)}
    if not tensors:
        raise ValueError("it holds no tensors by name: give a state_dict")
    _check_size(tensors.values(), file)
    by_storage: dict[_Storage, list[str]] = {}
    for name, tensor in tensors.items():
        by_storage.setdefault(tensor.storage, []).append(name)
    found: dict[str, np.ndarray] = {}
    for storage, names in by_storage.items():
        numbers = storage.numbers(data(storage))  # Once, however many are views of it.
        found |= {name: tensors[name].array(numbers) for name in names}
    return {name: found[name] for name in tensors}


def _check_size(tensors: Iterable[_Tensor], file: BinaryIO) -> None:
    """Raises ValueError where tensors are many times as large as their file, as views can be."""
    size = file.seek(0, 2)
    numbers = lambda x: min(math.prod(x.shape), x.storage.length)  # More is refused by itself.
    whole = sum(numbers(x) * np.dtype(x.storage.kind.dtype).itemsize for x in tensors)
    if whole > _MOST_VIEWS * size:
        raise ValueError(f"its tensors are {whole:,} bytes, and the file {size:,}")


def _legacy(file: BinaryIO) -> tuple[object, _Bytes]:
    """Five pickles, then for each storage its count and its numbers."""
    file.seek(0)
    unpickler = _Unpickler(file)
    if unpickler.load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL:
        raise ValueError("it is no file of PyTorch's")
    about = _Unpickler(file).load()
    if not isinstance(about, dict) or about.get("little_endian") is not True:
        raise ValueError("its numbers are not little-endian")
    reading = _Unpickler(file)
    tree = reading.load()
    keys = _Unpickler(file).load()
    places: dict[str, int] = {}
    for key in map(str, keys):
        count = int.from_bytes(file.read(8), "little")
        if key not in reading.storages or reading.storages[key].length != count:
            raise ValueError(f"it is cut or damaged: storage {key} has {count} numbers")
        places[key] = file.tell()
        file.seek(reading.storages[key].size, 1)

    def data(storage: _Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(storage.size)

    return tree, data


def _zip(file: BinaryIO) -> tuple[object, _Bytes]:
    """`<name>/data.pkl`, and `<name>/data/<key>` for each storage."""
    archive = zipfile.ZipFile(file)
    places = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(places) != 1:
        raise ValueError("it is no file of PyTorch's")
    folder = places[0].removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in archive.namelist():
        with archive.open(order) as opened:
            if opened.read(16) != b"little":
                raise ValueError("its numbers are not little-endian")
    if archive.getinfo(places[0]).file_size > _MOST_PICKLE:  # zipfile reads no more than it says.
        raise ValueError(f"its list of tensors is more than {_MOST_PICKLE:,} bytes")
    with archive.open(places[0]) as opened:
        tree = _Unpickler(opened).load()

    def data(storage: _Storage) -> bytes:
        place = f"{folder}data/{storage.key}"
        if archive.getinfo(place).file_size != storage.size:  # Before a bomb unfolds.
            raise ValueError(f"it is damaged: {place} has not the {storage.size} bytes it should")
        return archive.read(place)

    return tree, data


class _Unpickler(pickle.Unpickler):
    """Knows the names below, and tensors' storages by reference."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        if known is None:
            raise ValueError(
                f"it names {module}.{name}, which is no part of a file of tensors and is not run:"
                " save the model's state_dict() alone"
            )
        return known.make() if isinstance(known, _Fresh) else known

    def persistent_load(self, pid: Any) -> _Storage:
        tag, kind, key, _, count, *view = pid
        if tag != "storage" or not isinstance(kind, _Kind) or int(count) < 0:
            raise ValueError("it holds something other than tensors")
        if any(part is not None for part in view):
            raise ValueError(
                f"storage {key} is a part of another one: save tensors by their clone()"
            )
        return self.storages.setdefault(str(key), _Storage(kind, str(key), int(count)))


def _tensor(storage: Any, offset: int, shape: Any, strides: Any, *_: object) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("it holds something other than tensors")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


class _Named:
    """A function that a file names; the file cannot set attributes of it."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]):
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        raise ValueError("it changes what it names, as no file of tensors does")


class _Fresh(NamedTuple):
    """What is made anew for each file, which may set attributes of it."""

    make: Callable[[], Any]


def _parameter() -> Any:
    """A class of trained tensors; that they are such does not matter."""
    return type("Parameter", (), {"__new__": lambda cls, tensor, *_: tensor})


_rebuilt = _Named(_tensor)


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuilt,  # of 2017
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): _Named(lambda tensor, *_: tensor),
    ("torch.nn.parameter", "Parameter"): _Fresh(_parameter),  # of 2017
    ("torch", "FloatStorage"): _Kind("<f4"),
    ("torch", "DoubleStorage"): _Kind("<f8"),
    ("torch", "HalfStorage"): _Kind("<f2"),
    ("torch", "BFloat16Storage"): _Kind("<u2", bfloat16=True),
    ("torch", "LongStorage"): _Kind("<i8"),
    ("torch", "IntStorage"): _Kind("<i4"),
    ("torch", "ByteStorage"): _Kind("|u1"),
    ("torch", "BoolStorage"): _Kind("|b1"),
}
