"""Claim: a newcomer has a model of 40 labels on 400 photos within 5 minutes of `pip install`.

Makes a fresh virtual environment, installs the extra `photos` of this clone into it, starts the
command of the live page there on copies of photos called `class__anything.jpg`, without the class,
and answers by keys in a headless Chromium until the request is there that a model has chosen.

    pip install -e '.[photos,test]', and Chromium with its driver
    python benchmarks/newcomer.py --images=FOLDER [--count=400] [--labels=40] [--json]

Seconds of each part; `install` has the packages from wherever pip takes them. Nothing is cached:
the home folder is a new one. `ratio` is 300 s over the whole; the exit code is 1 if it is below 1.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from label_film import Film, copy_photos, label_all, sign_in
from live_people import ROOT, Command  # label_film knows where it is.

MOST = 300.0  # seconds


def measured(arguments, work):
    """Seconds of each part."""
    truth = copy_photos(arguments.images, work / "photos", arguments.count)
    os.environ.update(HOME=str(work / "home"), PIP_NO_CACHE_DIR="1")
    for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        os.environ.pop(name, None)
    (work / "home").mkdir()
    seconds, begin = {}, time.monotonic()

    def lap(name):
        nonlocal begin
        seconds[name] = round(time.monotonic() - begin, 1)
        begin = time.monotonic()

    subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
    python = work / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{ROOT}[photos]"], check=True)
    lap("install")
    flags = (f"--config.initial={arguments.labels}",)
    count = f"0 of {arguments.labels}"
    with Command(
        work / "photos", work / "work", "folder", *flags, python=python, cwd=work
    ) as command:
        film = Film(f"http://{command.host}:{command.port}/?token={command.token}")
        try:
            lap("page")
            sign_in(film)
            film.wait(lambda: film.find("count").text == count)
            lap("first request")
            label_all(film, truth, 0)
            lap("answers")
            film.wait(lambda: film.find("title").text == "Cycle 1")
            lap("model")
        finally:
            film.driver.quit()
    return seconds


def main():
    """Prints the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--labels", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = measured(arguments, pathlib.Path(folder))
    seconds["all"] = round(sum(seconds.values()), 1)
    seconds["ratio"] = MOST / seconds["all"]
    for name, value in seconds.items():
        print(f"{name}: {value}")
    if arguments.json:
        print(json.dumps(seconds))
    sys.exit(seconds["ratio"] < 1)


if __name__ == "__main__":
    main()
