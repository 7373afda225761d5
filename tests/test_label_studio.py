"""A real Label Studio: what a request looks like there, and how its answers come back.

Opt-in: TAVAAL_LABEL_STUDIO names the executable `label-studio` of an environment of its own.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import people
import pytest
from conftest import read_csv

PROGRAM = os.environ.get("TAVAAL_LABEL_STUDIO", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAM, reason="TAVAAL_LABEL_STUDIO names no label-studio"),
]

TOKEN = "0123456789abcdef0123456789abcdef01234567"


class Server:
    """What people do in Label Studio's pages, through its API."""

    def __init__(self, port, files):
        self.address, self.files = f"http://127.0.0.1:{port}", files

    def get(self, path):
        return self._send("GET", path)

    def ask(self, method, path, body=None):
        """The JSON of an answer."""
        sent = None if body is None else json.dumps(body).encode()
        return json.loads(self._send(method, path, sent) or b"null")

    def _send(self, method, path, body=None):
        request = urllib.request.Request(self.address + path, body, method=method)
        request.add_header("Authorization", f"Token {TOKEN}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def project(self, interface, **settings):
        settings = {"title": "photos", "label_config": interface} | settings
        return self.ask("POST", "/api/projects/", settings)["id"]

    def bring(self, project, tasks):
        """Imports a request's tasks."""
        path = f"/api/projects/{project}/import"
        return self.ask("POST", path, json.loads(tasks.read_text()))["task_count"]

    def shown(self, project):
        """The task that a person is shown next; None where all are done."""
        try:
            return self.ask("GET", f"/api/projects/{project}/next")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def annotate(self, task, label):
        """Submits a label, or skips where it is None; the annotation's number."""
        body = {"result": [], "was_cancelled": True} if label is None else _result(label)
        return self.ask("POST", f"/api/tasks/{task['id']}/annotations/", body)["id"]

    def change(self, annotation, label):
        self.ask("PATCH", f"/api/annotations/{annotation}/", _result(label))

    def export(self, project, file):
        file.write_bytes(self.get(f"/api/projects/{project}/export?exportType=JSON"))


def _result(label):
    choice = {"from_name": "label", "to_name": "image", "type": "choices"}
    return {"result": [choice | {"value": {"choices": [label]}}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("label_studio")
    files = base / "files"
    files.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "BASE_DATA_DIR": base / "data", "DJANGO_DB": "sqlite",
        "USERNAME": "test@localhost.com", "PASSWORD": "not-a-secret", "USER_TOKEN": TOKEN,
        "ENABLE_LEGACY_API_TOKEN": "true", "FEATURE_FLAGS_OFFLINE": "true",
        "LOCAL_FILES_SERVING_ENABLED": "true", "LOCAL_FILES_DOCUMENT_ROOT": files,
        "COLLECT_ANALYTICS": "false", "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": "",
    }  # fmt: skip
    # A bare PORT or HOST would be read, too, and our JAX flags are not its business.
    env = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    env |= {f"LABEL_STUDIO_{key}": str(value) for key, value in settings.items()}
    command = [PROGRAM, "start", "--no-browser", "--internal-host", "127.0.0.1"]
    with (base / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], env=env, cwd=base, stdout=log, stderr=log
        )
    server = Server(port, files)
    try:
        while not _is_up(server):  # The first start makes a database: a minute and a half.
            assert process.poll() is None, (base / "log.txt").read_text()[-2000:]
            time.sleep(1)
        yield server
    finally:
        process.terminate()
        process.wait()


def _is_up(server):
    try:
        return json.loads(server.get("/health"))["status"] == "UP"
    except (OSError, ValueError):
        return False


@pytest.fixture
def study(server):
    """A folder of photos and a workdir, both below what the server may read."""
    top = server.files / "study"
    shutil.rmtree(top, ignore_errors=True)
    truth = people.folder(top / "photos")
    one = people.config(top / "photos", top, cycles=2, **{"folder.test_fraction": 0.0})
    return one, top / "work", truth


def request(work, number):
    return pathlib.Path(work) / "to_label" / f"cycle_{number:03d}"


def interface(work):
    """What people paste, with the classes of these photos."""
    text = (request(work, 0) / "label_studio.xml").read_text()
    added = "".join(f'<Choice value="{name}"/>' for name in ("cat", "dog"))
    return text.replace("  </Choices>", f"  {added}</Choices>")


def answered(work):
    """Label of each file that is adopted, or what else it is said to be."""
    return {row["file"]: row["label"] or row["split"] for row in read_csv(work / "labels.csv")}


def label_all(server, project, answers):
    """Labels what the server shows, one after the other: files in that order, and annotations."""
    given = {}
    while task := server.shown(project):
        file = task["data"]["file"]
        given[file] = server.annotate(task, answers[file])
    return list(given), given


@pytest.mark.parametrize("sampling", ["Sequential sampling", "Uncertainty sampling"])
def test_two_cycles_by_import_and_export(sampling, server, study):
    """A task is skipped; another is answered wrongly, and corrected a cycle later."""
    one, work, truth = study
    assert "cycle 0: 16 images to label" in people.run(one, work)[0]
    project = server.project(interface(work), sampling=sampling, skip_queue="IGNORE_SKIPPED")
    export = work / "labels" / "label_studio.json"
    wished = [row["file"] for row in people.requested(work, 0)]
    skipped, wrong = wished[2], wished[4]
    mistaken = {"cat": "dog", "dog": "cat"}[truth[wrong]]

    hand_in(server, project, work, 0)
    seen, given = label_all(server, project, truth | {skipped: None, wrong: mistaken})
    assert seen == wished
    server.export(project, export)
    assert "cycle 1: 8 images to label" in people.run(one, work)[0]
    expected = {file: truth[file] for file in wished} | {skipped: "unsure", wrong: mistaken}
    assert answered(work) == expected

    hand_in(server, project, work, 1)
    wished = [row["file"] for row in people.requested(work, 1)]
    assert label_all(server, project, truth)[0] == wished
    server.change(given[wrong], truth[wrong])
    server.export(project, export)
    line, said = people.run(one, work)
    assert line is None
    assert any(f"{wrong} {mistaken} -> {truth[wrong]}" in text for text in said)
    expected |= {file: truth[file] for file in [wrong, *wished]}
    assert answered(work) == expected


def hand_in(server, project, work, cycle):
    """Imports a request's tasks and does as HOWTO.txt says for later cycles."""
    tasks = request(work, cycle) / "label_studio.json"
    assert server.bring(project, tasks) == len(people.requested(work, cycle))
    version = {"model_version": f"tavaal_cycle_{cycle:03d}"}
    server.ask("PATCH", f"/api/projects/{project}/", version)


def test_two_cycles_by_storages_without_import_or_export(server, study):
    one, work, truth = study
    people.run(one, work)
    project = server.project(interface(work))
    (work / "labels" / "label_studio").mkdir()
    where = {"project": project, "path": str(work / "to_label"), "recursive_scan": True}
    source = server.ask("POST", "/api/storages/localfiles/", where | {
        "regex_filter": r".*label_studio\.json", "use_blob_urls": False,
    })["id"]  # fmt: skip
    server.ask("POST", "/api/storages/export/localfiles", {
        "project": project, "path": str(work / "labels" / "label_studio"),
    })  # fmt: skip
    for cycle in range(2):
        wished = [row["file"] for row in people.requested(work, cycle)]
        server.ask("POST", f"/api/storages/localfiles/{source}/sync", {})
        _wait_for_tasks(server, project)
        assert label_all(server, project, truth)[0] == wished
        line, _ = people.run(one, work)
        assert ("cycle 1: 8 images to label" in line) if cycle == 0 else line is None
    found = answered(work)
    assert len(found) == 24
    assert {file: truth[file] for file in found} == found


def _wait_for_tasks(server, project):
    """A storage is read in the background on some set-ups."""
    for _ in range(60):
        if server.shown(project):
            return
        time.sleep(0.5)
    pytest.fail("no task came from the storage")


def test_pictures_of_local_files_are_served(server, study):
    one, work, _ = study
    one.folder.label_studio_images, one.folder.label_studio_root = "local", str(server.files)
    people.run(one, work)
    project = server.project(interface(work))
    folder = pathlib.Path(one.folder.images)
    server.ask("POST", "/api/storages/localfiles/", {
        "project": project, "path": str(folder), "use_blob_urls": True,
    })  # fmt: skip
    server.bring(project, request(work, 0) / "label_studio.json")
    task = server.shown(project)
    file = folder / task["data"]["file"]
    assert server.get(task["data"]["image"]) == file.read_bytes()
