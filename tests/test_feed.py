"""Examples read ahead: those that the plan names, in its order, and a study that is the same."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import read_csv
from PIL import Image
from trials import config_of, dataset

from configs import smoke
from tavaal_jax.algorithm import problems
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.problems import Segmentation
from tavaal_jax.data.dataset import Dataset
from tavaal_jax.data.feed import Ahead, Reads, feed
from tavaal_jax.data.pictures.lazy import LazyPictures
from tavaal_jax.data.plans import CropOrigins, Examples, ExtraUpdates, IndexPlan
from tavaal_jax.data.pool import LabelMaps, Normaliser, Resident, Streamed
from tavaal_jax.engine import devices, memory, programs, steps
from tavaal_jax.engine.programs import Inference, PoolExample
from tavaal_jax.run import run_study
from tavaal_jax.study import setup

LAST, SIZE, BATCH = 23, 40, 4


@pytest.fixture
def pool(tmp_path, rng):
    """Images on a disk."""
    images = rng.integers(0, 256, (SIZE, 5, 5, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", "r")
    return Streamed(mapped, np.arange(SIZE, dtype=np.int32), Normaliser.of(images))


def plan(first, count):
    """Rows that tell their step."""
    rows = lambda role: (
        (np.arange(first, first + count)[:, None] * 7 + np.arange(BATCH) + role) % 40
    )
    more = np.stack([rows(2), rows(3)], axis=-1)
    return IndexPlan(
        rows(0), rows(1), np.tile(np.arange(BATCH), (count, 1)), ExtraUpdates(more, more + 0)
    )


@pytest.mark.parametrize("first", [0, 11])
def test_the_examples_of_a_plan_are_given_in_its_order(pool, first):
    condition = {"rank": np.arange(SIZE)[:, None] * 2.0}
    ahead = Ahead(plan, pool, condition, LAST, 5)
    at = first
    for count in (1, 2, 4, 3):  # As a pace changes.
        wanted, found = plan(at, count), ahead(at, count)
        for rows, given in ((wanted, found), (wanted.more, found.more)):
            pools = (rows.labelled, given.labelled), (rows.unlabelled, given.unlabelled)
            for indices, examples in pools:
                assert isinstance(examples, Examples)
                np.testing.assert_array_equal(examples.image, pool.images[indices])
                np.testing.assert_array_equal(
                    examples.condition["rank"], condition["rank"][indices]
                )
            np.testing.assert_array_equal(given.labelled.label, rows.labelled)
            assert given.unlabelled.label is None
        np.testing.assert_array_equal(found.positions, wanted.positions)
        at += count
    ahead.close()


def test_no_more_is_read_than_was_asked_for_ahead(pool):
    read = []

    def spied(first, count):
        read.append((first, first + count))
        return plan(first, count)

    ahead = Ahead(spied, pool, None, LAST, 5)
    ahead(0, 2)
    ahead(2, 2)
    ahead(4, 2)
    assert read == [(0, 7), (7, 9), (9, 11)]
    ahead(6, 10)
    ahead(16, 7)
    assert read[3:] == [(11, 21), (21, LAST)]
    ahead.close()


def test_waiting_is_counted_and_forgotten(pool):
    go = threading.Event()

    class Slow(np.ndarray):
        """Images that come when `go` is set."""

        def take(self, *args, **kwargs):
            go.wait(10)
            return np.asarray(self).take(*args, **kwargs)

    slow = pool.replace(images=np.asarray(pool.images).view(Slow))
    ahead = Ahead(plan, slow, None, LAST, 2)
    threading.Timer(0.2, go.set).start()
    ahead(0, 1)
    assert ahead.take_waited() > 0.1
    assert ahead.take_waited() == 0
    ahead.close()


@pytest.mark.parametrize("shape", [(9, 12), (5, 12), (4, 3)])
def test_a_host_cuts_the_windows_that_the_devices_would(rng, shape):
    """The same keys, the same corners, the same pixels; smaller images are filled up."""
    problem = Segmentation(7, crop=6)
    images = rng.integers(0, 256, (SIZE, *shape, 3), np.uint8)
    maps = rng.integers(0, 7, (SIZE, *shape)).astype(np.uint8)
    labels = LabelMaps(maps, np.zeros((SIZE, 7), np.int32), np.arange(SIZE) % 2 == 0)
    there = Streamed(images, labels, Normaliser.of(images))
    key, rows = jax.random.key(3), plan(4, 2)
    now, more = steps.crop_origins(
        problem, images.shape[1:], key, np.arange(4, 6, dtype=np.int32), rows.positions, 2
    )
    more = jax.tree.map(lambda x: None if x is None else np.asarray(x)[:, :, None], more)
    rows = rows._replace(
        crop_origins=jax.device_get(now),
        more=ExtraUpdates(*(r[..., :1] for r in rows.more[:2]), more),
    )
    wanted = Reads(
        frozenset({"image", "label", "map", "ranker_crop"}), frozenset({"ranker_crop"}), window=6
    )
    ahead = Ahead(lambda first, count: jax.tree.map(lambda x: x[first : first + count], rows),
                  there, None, 2, 1, wanted)  # fmt: skip
    found = ahead(0, 2)
    ahead.close()

    def expected(arrays, indices, crop_origins):
        cut = [
            [problem._window(jnp.asarray(arrays[i]), jnp.asarray(c), fill)
             for i, c in zip(row, at, strict=True)]
            for row, at in zip(indices, crop_origins, strict=True)
        ]  # fmt: skip
        return np.array(cut)

    fill = 0
    at = rows.crop_origins
    same = np.testing.assert_array_equal
    same(found.labelled.image, expected(images, rows.labelled, at.trained))
    same(found.labelled.ranker_crop, expected(images, rows.labelled, at.labelled))
    same(found.unlabelled.ranker_crop, expected(images, rows.unlabelled, at.unlabelled))
    assert found.unlabelled.image is None
    later = found.more.unlabelled.ranker_crop[:, :, 0]
    same(later, expected(images, rows.more.unlabelled[..., 0], more.unlabelled[:, :, 0]))
    later = found.more.labelled.ranker_crop[:, :, 0]
    same(later, expected(images, rows.more.labelled[..., 0], more.labelled[:, :, 0]))
    fill = 255
    same(found.labelled.label.maps, expected(maps, rows.labelled, at.trained))
    same(found.labelled.label.known, rows.labelled % 2 == 0)
    assert (at.trained != at.labelled).any() == (shape != (4, 3))
    # T is not trained in further updates.
    assert found.more.labelled.image is found.more.labelled.label.maps is None
    same(found.more.labelled.label.known, rows.more.labelled % 2 == 0)


class Spied:
    """An array of images or maps that writes down what is read of it."""

    def __init__(self, array):
        self._array, self.read = array, []
        self.shape, self.ndim, self.dtype, self.nbytes = (
            array.shape, array.ndim, array.dtype, array.nbytes,
        )  # fmt: skip

    def __len__(self):
        return len(self._array)

    def __getitem__(self, key):
        self.read += np.ravel(key).tolist()
        return self._array[key]


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "images", "maps"),
    [
        # A step of T and an adversary that is told of windows: L for both, U, two further updates.
        (
            {"image", "label", "map", "thumbnail", "ranker_crop"},
            {"thumbnail", "ranker_crop"},
            2 + 2 * 2,
            1,
        ),
        # One that is told nothing.
        ({"image", "label", "map", "thumbnail"}, {"thumbnail"}, 1, 1),
        # The second phase: T is not trained.
        ({"label", "thumbnail"}, {"thumbnail"}, 0, 0),
    ],
)
def test_of_each_image_and_map_no_more_is_read_than_a_step_looks_at(
    rng, labelled, unlabelled, images, maps
):
    array = rng.integers(0, 7, (SIZE, 9, 9, 3)).astype(np.uint8)
    pixels, known = rng.integers(0, 9, (SIZE, 7)), np.ones(SIZE, bool)
    pool = Streamed(
        Spied(array), LabelMaps(Spied(array[..., 0]), pixels, known), Normaliser.of(array),
        array[:, :4, :4],
    )  # fmt: skip
    crop_origin = lambda *shape: rng.integers(0, 3, (1, BATCH, *shape, 2))
    rows = plan(0, 1)._replace(
        crop_origins=CropOrigins(crop_origin(), crop_origin(), crop_origin())
    )
    rows = rows._replace(
        more=rows.more._replace(crop_origins=CropOrigins(None, crop_origin(2), crop_origin(2)))
    )
    ahead = Ahead(lambda first, count: rows, pool, None, 1, 1,
                  Reads(frozenset(labelled), frozenset(unlabelled), window=6))  # fmt: skip
    found = ahead(0, 1)
    ahead.close()
    assert len(pool.images.read) == images * BATCH
    assert len(pool.labels.maps.read) == maps * BATCH
    same = np.testing.assert_array_equal
    for given, indices in ((found, rows), (found.more, rows.more)):
        same(given.labelled.label.pixels, pixels[indices.labelled])
        same(given.labelled.thumbnail, array[:, :4, :4][indices.labelled])


def test_what_is_known_of_maps_can_be_seen_without_them():
    labels = LabelMaps(None, jnp.full((2, 3), 7), jnp.array([True, False]))
    maps, pixels = labels.visible()
    assert maps is None
    np.testing.assert_array_equal(pixels, [[7, 7, 7], [0, 0, 0]])


def test_what_cannot_be_read_is_raised_where_it_is_needed(pool):
    beyond = lambda first, count: plan(first, count)._replace(labelled=np.full((count, 2), SIZE))
    ahead = Ahead(beyond, pool, None, LAST, 2)
    with pytest.raises(IndexError):
        ahead(0, 1)
    ahead.close()


def test_resident_data_keep_their_plan_and_streamed_ones_leave_the_pool_behind(pool):
    resident = Resident(pool.images, pool.labels, pool.normalise)
    with feed(resident, None, plan, (LAST, 5)) as (data, fed, waited):
        assert data[0] is resident
        assert fed is plan
        assert waited() == 0
    with feed(pool, None, plan, (LAST, 5)) as (data, fed, _):
        assert data[0].images is data[0].labels is None
        assert isinstance(fed(0, 3).labelled, Examples)


@pytest.mark.parametrize("count", [1, 7, 40])
def test_a_pool_in_host_memory_is_mapped_like_one_on_the_devices(count):
    data = {"x": np.arange(40, dtype=np.float32) ** 2, "n": np.arange(40)}
    function = lambda scale, e: (e["x"] * scale, e["n"])
    program = devices.map_program(function, f"streamed{count}", 2)
    indices = np.random.default_rng(1).permutation(40)[:count]
    parts = {
        where: [np.concatenate(x) for x in zip(*program(np.float32(3), tree, indices), strict=True)]
        for where, tree in (("host", data), ("devices", devices.place(data)))
    }
    jax.tree.map(np.testing.assert_array_equal, parts["host"], parts["devices"])
    np.testing.assert_array_equal(parts["host"][1], indices)


class Unreadable:
    """An array on a disk that nobody is to read."""

    def __init__(self, *shape, dtype=np.uint8):
        self.shape, self.dtype = shape, np.dtype(dtype)

    def __getitem__(self, rows):
        raise AssertionError("it was read")


@pytest.mark.parametrize(
    ("name", "reads"),
    [("random", ""), ("learning_loss", ""), ("tavaal", "thumbnail"), ("coreset", "image")],
)  # fmt: skip
def test_scoring_reads_only_what_the_value_depends_on(name, reads):
    config, shape = smoke.get_config(), (12, 12, 1)
    config.vae.image_size = 8
    problem = problems.of(config, 4, False)
    made = programs.build(config, METHODS[name], shape, problem)
    key = jax.random.key(0)
    learner, adversary = devices.place(made.init(key, 0))
    inferred = Inference(None, None)
    if made.needs_inference:
        one = np.zeros((8, *shape), np.uint8)
        parts = made.infer((learner, Normaliser.constant([0.5], [0.5])), one, np.arange(8))
        inferred = next(iter(parts))
    variables = (learner, adversary, Normaliser.constant([0.5], [0.5]), key)
    there = {
        "image": np.zeros((8, *shape), np.uint8),
        "thumbnail": np.zeros((8, 8, 8, 1), np.uint8),
    }

    def score(**images):
        candidates = PoolExample(number=np.arange(8), inferred=inferred, **images)
        return list(made.values(variables, candidates, np.arange(8)))

    nowhere = {what: Unreadable(*array.shape) for what, array in there.items()}
    needed = {what: there[what] for what in there if what == reads}
    one, other = score(**{**nowhere, **needed}), score(**there)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    if reads:
        with pytest.raises(AssertionError, match="it was read"):
            score(**nowhere)


@pytest.mark.parametrize(
    ("asked", "size", "kind"),
    [("auto", 10**9, Resident), ("auto", 1000, Streamed), ("resident", 1000, Resident),
     ("streamed", 10**9, Streamed)],
)  # fmt: skip
def test_data_that_do_not_fit_stay_where_they_are(monkeypatch, asked, size, kind):
    monkeypatch.setattr(memory, "device_bytes", lambda: size)
    placed = setup.place(config_of(data_placement=asked), dataset())
    assert [type(one) for one in placed] == [kind, kind]


def test_pictures_are_decoded_to_the_devices_only_where_that_is_asked_for(tmp_path, rng):
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8)).save(file)
    pictures = LazyPictures(files, list(map(str, files)), (4, 6, 3))
    labels = np.arange(3, dtype=np.int32)
    data = Dataset("files", pictures, labels, labels.astype(str), pictures, labels, ("a", "b", "c"))
    for how, kind in (("auto", Streamed), ("streamed", Streamed), ("resident", Resident)):
        placed = setup.place(config_of(data_placement=how), data)
        assert [type(one) for one in placed] == [kind, kind]
        np.testing.assert_array_equal(placed[0].images, pictures)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("tavaal", {"schedule": "two_phase", "vae.unlabelled": "subset"}),
        ("sraal", {"vae.updates": 3}),
        ("coreset", {}),
    ],
)
def test_a_streamed_study_is_the_resident_one(tmp_path, method, changes):
    """Both schedules, and values of the pool and of L; test_cityscapes.py has TA-VAAL jointly."""
    assert method in METHODS
    for how in ("resident", "streamed"):
        config = config_of(methods=method, trials=1, cycles=3, data_placement=how, **changes)
        run_study(config, tmp_path / how)
    for name in ("results.csv", "picks.csv"):
        one, other = (
            (tmp_path / how / method / "trial_0" / name).read_bytes()
            for how in ("resident", "streamed")
        )
        assert one == other
    rows = [read_csv(tmp_path / how / method / "trial_0" / "diagnostics.csv")
            for how in ("resident", "streamed")]  # fmt: skip
    timeless = [[{k: v for k, v in r.items() if "seconds" not in k} for r in t] for t in rows]
    assert timeless[0] == timeless[1]
