"""Claim: the live page is there 3 s after the command, the next picks 5 s after the last answer.

Starts the command of the live page on photos called `class__anything.jpg` in a folder (`--images`;
without it, drawn ones) and lets people answer by HTTP. Measured are seconds from the command to the
page and to the request (features are cached), seconds from the last answer of a request to the next
one, answers a minute of several people at once with the time that each waits, pictures a second of
the grid, made and kept, and `kill -9` at random moments while they answer. Answers that were
acknowledged and are not on the disk, and those that are there twice, are counted: `lost`, `twice`.

    python benchmarks/live_page.py [--images=FOLDER] [--count=2000] [--cycles=5] [--people=4]
        [--kills=20] [--pictures=10000] [--pause=15] [--config=folder] [--json]
        [--config.budget=20 ...]

`ratio` is 5 s over the median wait, without the first two cycles, which compile programs. The exit
code is 1 where that is below 1, or an answer is lost or there twice.
"""

import argparse
import collections
import contextlib
import http.client
import json
import pathlib
import random
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))
from live_people import Command, on_disk
from people_cycle import draw_photos


class Truth(dict):
    """The class of each photo, from its name."""

    def __missing__(self, file):
        return pathlib.PurePath(file).name.split("__")[0]


TRUTH = Truth()


def started(command_of, name):
    """A running command, and seconds to its page and to its request."""
    begin = time.monotonic()
    command = command_of()
    person = command.person(name)
    page = None
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if page is None and person.ask("GET", "/")[0] == 200:
                page = time.monotonic() - begin
            if page is not None and person.ask("GET", "/api/request?who=x")[0] == 200:
                return command, person, page, time.monotonic() - begin
        time.sleep(0.02)


def waits(person, cycles, pause):
    """Seconds from the last answer of each request to the next."""
    found = []
    for _ in range(cycles):
        time.sleep(pause)  # People take time, in which the model is written for use elsewhere.
        request = person.get("/api/request?who=x")
        begin = time.monotonic()
        person.label(request, TRUTH)
        person.until(lambda s, n=request["request"]: (s.get("request") or 0) > n, "a request")
        found.append(time.monotonic() - begin)
    return found


class Crowd:
    """People who answer images again and again, and remember what was acknowledged."""

    def __init__(self, names):
        self.known = {name: {} for name in names}
        self.counts = collections.Counter()
        self.seconds = []

    def answer(self, command, images, seconds, pause):
        """Lets all answer at once for some seconds, or until the command is gone."""
        end = time.monotonic() + seconds

        def work(name):
            person, turn = command.person(name), 0
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                while time.monotonic() < end:
                    image = images[turn % len(images)]
                    # Never the same twice running, which would be a repetition.
                    label = ("a", "b")[(self.counts[name, image]) % 2]
                    begin = time.monotonic()
                    person.say({image: label})
                    self.seconds.append(time.monotonic() - begin)
                    self.known[name][image] = label
                    self.counts[name, image] += 1
                    turn += 1
                    time.sleep(max(0.0, pause - (time.monotonic() - begin)))

        threads = [threading.Thread(target=work, args=(name,)) for name in self.known]
        for thread in threads:
            thread.start()
        return threads

    def faults(self, workdir):
        """Acknowledged answers that are not the last on the disk, and rows that are there twice."""
        rows, last, counts = on_disk(workdir), {}, collections.Counter()
        for name, image, label in rows:
            last[name, image] = label
            counts[name, image] += 1
        pairs = [(n, i, label) for n, mine in self.known.items() for i, label in mine.items()]
        lost = sum(
            counts[n, i] < self.counts[n, i]
            or (counts[n, i] == self.counts[n, i] and last[n, i] != label)
            for n, i, label in pairs
        )
        # The last one may be on the disk though its acknowledgement never came.
        twice = sum(counts[pair] > self.counts[pair] + 1 for pair in counts)
        return lost, twice


def pictures(person, count):
    """Pictures a second over six connections, as a browser has: made, and kept."""
    found = person.get("/api/map?kind=pca")
    while found["state"] != "ready":
        time.sleep(0.2)
        found = person.get("/api/map?kind=pca")
    ids, rates = found["ids"][:count], []
    for _ in range(2):
        begin, todo = time.monotonic(), list(ids)

        def fetch(todo=todo):
            line = http.client.HTTPConnection(person.host, person.port, timeout=60)
            while True:
                try:
                    name = todo.pop()
                except IndexError:
                    return line.close()
                line.request("GET", f"/image/{name}", headers={"Cookie": person.cookie})
                answer = line.getresponse()
                assert answer.status == 200
                answer.read()

        threads = [threading.Thread(target=fetch) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rates.append(len(ids) / (time.monotonic() - begin))
    return rates


def measured(arguments, flags, folder):
    """All figures."""
    images = pathlib.Path(arguments.images) if arguments.images else folder / "photos"
    if not arguments.images:
        draw_photos(images, -(-arguments.count // 3), False)
    work = folder / "work"
    command_of = lambda: Command(images, work, arguments.config, *flags)
    command, *_ = started(command_of, "x")  # Computes features.
    command.stop()
    command, person, page, request = started(command_of, "x")
    found = {"page": page, "request": request}
    with command:
        found["waits"] = waits(person, arguments.cycles, arguments.pause)
        found["made"], found["kept"] = pictures(person, arguments.pictures)
        ids = [image["id"] for image in person.get("/api/request?who=x")["images"]][:-1]
        crowd = Crowd([f"person {n}" for n in range(arguments.people)])
        seconds = arguments.seconds
        for thread in crowd.answer(command, ids, seconds, 60 * arguments.people / 400):
            thread.join()
        found["a_minute"] = 60 * len(crowd.seconds) / seconds
        found["answer_median"] = statistics.median(crowd.seconds)
        found["answer_worst"] = max(crowd.seconds)
    draw = random.Random(0)
    for _ in range(arguments.kills):
        with started(command_of, "x")[0] as command:
            threads = crowd.answer(command, ids, 60, 0)
            time.sleep(draw.uniform(0.1, 2.0))
            command.kill()
            for thread in threads:
                thread.join()
    with started(command_of, "x")[0]:  # Mends rows that were cut.
        found["lost"], found["twice"] = crowd.faults(work)
    return {**found, "answers": sum(crowd.counts.values()), "kills": arguments.kills}


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default="")
    parser.add_argument("--config", default="folder")
    for name, usual in (
        ("count", 2000), ("cycles", 5), ("people", 4), ("kills", 20), ("pictures", 10_000),
        ("seconds", 60), ("pause", 15),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--json", action="store_true")
    arguments, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(arguments, flags, pathlib.Path(folder))
    warm = found["waits"][2:] or found["waits"]
    found["ratio"] = 5 / statistics.median(warm)
    for name, value in found.items():
        print(f"{name}: {value}")
    if arguments.json:
        print(json.dumps(found))
    sys.exit(bool(found["lost"] or found["twice"] or found["ratio"] < 1))


if __name__ == "__main__":
    main()
