"""A folder with every oddity: each entry is accounted for, and a second start reads no file."""

import json
import os
import re
import resource
import subprocess
import sys
import time

import locales
import numpy as np
import people
import photo_models
import pytest
from conftest import QUICK_COMPILATION, ROOT, read_csv
from odd_folder import OddFolder
from PIL import Image

from tavaal_jax.labelling import reading
from tavaal_jax.labelling.images import files, inventory
from tavaal_jax.labelling.workdir import LabellingWorkdir

COUNT = 600


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    root = tmp_path_factory.mktemp("odd")
    try:
        return OddFolder(root / "images", COUNT)
    except OSError:
        pytest.skip("this file system takes no name that is not UTF-8")


def kind(what):
    """A kind without the endings that it counts."""
    return re.sub(r" \(\.[^)]*\)", " ({})", what)


@pytest.fixture(scope="module")
def starts(odd, tmp_path_factory):
    """Two snapshots, the lines of each, and how many files the second has read."""
    root = tmp_path_factory.mktemp("work")
    config = photo_models.config_of(**{
        "folder.images": str(odd.folder), "data_dir": str(root), "folder.class_folders": False,
    })  # fmt: skip
    workdir = LabellingWorkdir(root)
    lines, found, read = [[], []], [], []
    with pytest.MonkeyPatch.context() as patch:
        real = inventory.read_head
        patch.setattr(inventory, "read_head", lambda path: (read.append(path), real(path))[1])
        now = time.time_ns
        patch.setattr(inventory.time, "time_ns", lambda: now() + 10**10)  # The files are not new.
        for said in lines:
            read.clear()
            images = reading.open_images(config, workdir)
            found.append(reading.take_snapshot(config, workdir, images, said.append, lambda: None))
    return found, lines, list(read)


def test_every_entry_is_accounted_for(odd, starts):
    (first, _), _, _ = starts
    status = {}
    of_id = {image.id: image.status for image in reversed(first.images) if image.id}
    for image in first.images:
        is_copy = image.status.startswith("duplicate_of:")
        original = of_id[image.id] if is_copy else "ok"
        of_copy = "duplicate_of" if original == "ok" else original
        assert image.file not in status
        status[image.file] = of_copy if is_copy else image.status
    for one in first.passed["images"]:
        for name in one.names:
            assert name not in status
            status[name] = kind(one.what)
    assert status == odd.expected


def test_the_lines_add_up(odd, starts):
    (first, _), (lines, _), _ = starts
    told = sum(int(line.partition(" ")[0].replace(",", "")) for line in lines)
    assert told == len(first.images)
    assert len(first.images) + sum(len(o.names) for o in first.passed["images"]) == len(
        odd.expected
    )
    every = [*lines, *(one.line for one in first.passed["images"])]
    assert len(every) == len({re.sub(r"^[\d,]+", "", line).partition(":")[0] for line in every})
    for line in every:
        assert line.isprintable()
        assert len(line) < 4 * 90 + 100


def test_a_second_start_reads_nothing_and_says_nothing(starts):
    (first, second), (_, lines), read = starts
    assert read == []
    assert lines == []
    assert second.images == first.images
    assert second.passed == first.passed


def test_files_and_names_are_those_of_the_disk(odd, starts):
    (first, _), _, _ = starts
    for image in first.images:
        if image.status == "ok":
            path = files.path_of(odd.folder, image.file)
            assert os.fsencode(path).endswith(image.file.encode())
            assert os.path.isfile(path)


@pytest.mark.parametrize("locale", locales.NAMES)
def test_no_locale_changes_a_name(odd, starts, tmp_path, locale):
    (first, _), _, _ = starts
    script = (
        "import pathlib, sys\n"
        "from tavaal_jax.labelling.images import inventory\n"
        "root, out = map(pathlib.Path, sys.argv[1:])\n"
        "found = inventory.scan(root, (), out / 'index', 10**8)\n"
        "text = ''.join(f'{image.file!r}\\n' for image in found.images)\n"
        "(out / 'names').write_text(text, encoding='utf-8')\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(odd.folder), str(tmp_path)], cwd=ROOT, check=True,
        env={**os.environ, **locales.settings(locale, tmp_path / "locales")},
    )  # fmt: skip
    names = (tmp_path / "names").read_text(encoding="utf-8").splitlines()
    assert names == [repr(image.file) for image in first.images]


def test_status_always_says_what_is_not_read_and_the_log_when_it_changes(tmp_path):
    people.folder(tmp_path / "photos")
    config, work = people.config(tmp_path / "photos", tmp_path), tmp_path / "work"
    record = lambda: json.loads((work / "status.json").read_text(encoding="utf-8"))["passed_over"]
    told = lambda lines: [line for line in lines if line.startswith("not read: ")]
    (tmp_path / "photos" / "notes.txt").write_text("text")
    line = "not read: 1 file with other endings (.txt 1): notes.txt"
    assert told(people.run(config, work)[1]) == [line]
    assert record()["images"] == [
        {"what": "files with other endings (.txt 1)", "count": 1, "first": ["notes.txt"]}
    ]
    assert told(people.run(config, work)[1]) == []
    (tmp_path / "photos" / "a.png.bak").write_bytes(b"late")
    backup = "not read: 1 leftover of images (backups, unfinished downloads): a.png.bak"
    assert told(people.run(config, work)[1]) == [backup]
    assert [one["count"] for one in record()["images"]] == [1, 1]
    assert told(people.run(config, work)[1]) == []


def test_pictures_that_come_out_white_are_told_once(tmp_path):
    people.folder(tmp_path / "photos")
    for number in range(2):
        values = np.arange(64, dtype=np.float32).reshape(8, 8) + number
        Image.fromarray(values).save(tmp_path / "photos" / f"deep_{number}.tif")
    config, work = people.config(tmp_path / "photos", tmp_path), tmp_path / "work"
    lines = [people.run(config, work)[1] for _ in range(2)]
    assert [sum("low_high" in line for line in said) for said in lines] == [1, 0]
    assert (
        "2 pictures of floats have values from 0 to 64 and come out mostly white or black, as 0 to"
        ' 1 is shown: give --config.folder.low_high="(0, 127)"'
    ) in lines[0]


@pytest.mark.slow
def test_two_thousand_entries(tmp_path, compiled, capsys):
    """Three starts of the command; their seconds on the processor are printed, not judged."""
    odd = OddFolder(tmp_path / "images", 2_000)
    config = tmp_path / "mine.py"
    config.write_text(
        "from tavaal_jax import load_config\n\n\ndef get_config():\n"
        "    return load_config('folder_from_scratch')\n"
    )
    command = [
        sys.executable, "-m", "tavaal_jax.main", f"--config={config}",
        f"--config.folder.images={odd.folder}", "--config.folder.class_folders=False",
        f"--config.data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'work'}",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace(QUICK_COMPILATION, ""),
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "PYTHONPATH": str(ROOT),
    }
    lines = []
    for number in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace",
            check=False,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        lines.append((done.stdout + done.stderr).splitlines())
        with capsys.disabled():
            print(f"\nstart {number + 1}: {seconds:.1f} s on the processor, {len(lines[-1])} lines")
        assert done.returncode == 75, done.stderr
        assert "Traceback" not in done.stderr
        time.sleep(2.2)  # Files are trusted only when they are no longer new.
    assert len(lines[0]) < 40
    assert lines[2][-1].startswith("cycle 0: ")
    assert not [line for line in lines[2] if "not read" in line or "cannot" in line]
    images = read_csv(tmp_path / "work" / "images.csv")
    assert len(images) > 1600
