"""The live page without a browser: its command as a process, and people who talk to it by HTTP."""

import contextlib
import csv
import http.client
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.parse

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = """
from tavaal_jax import load_config

def get_config():
    one = load_config("folder_from_scratch")
    one.update(epochs=2, batch_size=8, initial=16, budget=8, data_dir={cache!r})
    one.augmentation.update(pad=1, flip=False)
    one.task.update(widths=(4,), blocks=(1,))
    one.vae.update(latent=4, widths=(4, 4))
    one.discriminator.hidden = (8,)
    one.folder.update(image_size=8, channels=1)
    return one
"""
PATIENCE = 600  # seconds


def config_file(tmp_path):
    """A config of a tiny network, as a file."""
    path = tmp_path / "tiny.py"
    path.write_text(CONFIG.format(cache=str(tmp_path / "cache")), "utf-8")
    return path


class Command:
    """The command of the live page, in a process of its own."""

    def __init__(self, images, workdir, config, *flags, python=sys.executable, cwd=ROOT):
        environment = {**os.environ, "PYTHONPATH": str(cwd), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [
                str(python), "-m", "tavaal_jax.label", str(images), f"--workdir={workdir}",
                f"--config={config}", "--port=0", "--nobrowser", *flags,
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
            cwd=cwd,
        )  # fmt: skip
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            found = re.search(r"http://([^/]+):(\d+)/\?token=(\S+)", line)
            if found:
                self.host, self.port, self.token = found[1], int(found[2]), found[3]
                return
        raise AssertionError("".join(self.lines))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.kill()

    def kill(self):
        """Ends it as a power cut would."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        """Ends it by ctrl-C; the exit code, and what it has printed."""
        self.process.send_signal(signal.SIGINT)
        text = self.process.stdout.read()
        return self.process.wait(PATIENCE), "".join(self.lines) + text

    def person(self, name=""):
        """A person with the page's cookie."""
        return Person(self.host, self.port, self.token, name)


class Person:
    """Asks for pages and gives answers; every call makes a connection of its own."""

    def __init__(self, host, port, token, name=""):
        self.host, self.port, self.name = host, port, name
        self.cookie = f"tavaal_{port}={token}"

    def ask(self, method, path, body=None, headers=(), timeout=30):
        """Status, headers and content of an answer; headers of None are left out."""
        sent = {
            "Host": f"{self.host}:{self.port}",
            "Cookie": self.cookie,
            **({"Origin": f"http://{self.host}:{self.port}"} if method == "POST" else {}),
            **({"Content-Type": "application/json"} if body is not None else {}),
            **dict(headers),
        }
        line = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        with contextlib.closing(line):
            content = json.dumps(body).encode() if isinstance(body, dict | list) else body
            line.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            if content is not None and "Content-Length" not in sent:
                line.putheader("Content-Length", str(len(content)))
            for key, value in sent.items():
                if value is not None:
                    line.putheader(key, value)
            line.endheaders(content)
            answer = line.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def get(self, path):
        """An object that must be there."""
        status, _, content = self.ask("GET", path)
        assert status == 200, (status, content)
        return json.loads(content)

    def post(self, path, body):
        """The reply to an object that must be taken."""
        status, _, content = self.ask("POST", path, body)
        assert status == 200, (status, content)
        return json.loads(content)

    def state(self):
        """The state."""
        return self.get("/api/state")

    def until(self, is_so, what=""):
        """The first state for which something is so."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = self.state()
            if is_so(found):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{what} never came: {found}")

    def waiting(self, number=0):
        """The request of a cycle, when it is out."""
        self.until(lambda s: s.get("request") == number, f"request {number}")
        return self.get(f"/api/request?who={urllib.parse.quote(self.name)}")

    def say(self, labels, digest=""):
        """Gives answers, labels by image id."""
        answers = [{"id": name, "label": label} for name, label in labels.items()]
        body = {"who": self.name, "digest": digest, "answers": answers}
        return self.post("/api/answers", body)

    def label(self, request, truth, images=None):
        """Answers a request, or some images of it, truly."""
        chosen = request["images"] if images is None else images
        return self.say({i["id"]: truth[i["file"]] for i in chosen}, request["digest"])


def acknowledge(person, request, truth, pause=0.0, most=10**6):
    """Answers a request image by image; what was said to be saved, by id, when it breaks off."""
    known = {}
    with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
        for image in request["images"][:most]:
            label = truth[image["file"]]
            person.say({image["id"]: label}, request["digest"])
            known[image["id"]] = label
            time.sleep(pause)
    return known


def on_disk(workdir):
    """Rows of the page's files, `(annotator, id, label)`."""
    found = []
    for path in sorted((workdir / "labels").glob("page_*.csv")):
        text = path.read_text("utf-8-sig")
        whole = text[: text.rfind("\n") + 1]
        rows = csv.DictReader(io.StringIO(whole, newline=""))
        found += [(row["annotator"], row["id"], row["label"]) for row in rows]
    return found


def ledger(workdir):
    """Bytes of what a labelling loop has asked, learned and picked; by name."""
    patterns = ("cycles/*/asked.csv", "cycles/*/labels.csv", "*/trial_0/picks.csv", "results.csv",
                "*/trial_0/results.csv", "labels.csv", "classes.txt", "images.csv")  # fmt: skip
    paths = sorted({path for pattern in patterns for path in workdir.glob(pattern)})
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}
