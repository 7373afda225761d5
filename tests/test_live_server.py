"""The live page's server against hostile requests, and people who answer at once."""

import contextlib
import csv
import dataclasses
import datetime
import io
import json
import os
import resource
import socket
import sys
import threading
import time

import numpy as np
import pytest
from live_people import PATIENCE, Person
from PIL import Image

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.live import Previews
from tavaal_jax.labelling.page import events, security, server
from tavaal_jax.labelling.page.answer_files import AnswerFiles
from tavaal_jax.labelling.page.board import Board, Exchange, Known, RequestView
from tavaal_jax.labelling.page.security import POLICY, Hosts

COUNT = 12
OPENED = []  # paths, while a test watches; a hook cannot be taken away
WATCHING = threading.Event()


def hook(event, arguments):
    if event == "open" and WATCHING.is_set() and isinstance(arguments[0], str | bytes):
        OPENED.append(os.fsdecode(arguments[0]))


sys.addaudithook(hook)


def photos(folder):
    """Ids and files of small photos."""
    from tavaal_jax.data.pictures.decode import content_id

    folder.mkdir()
    found = {}
    for number in range(COUNT):
        path = folder / f"photo {number}.png"
        pixels = np.random.default_rng(number).integers(0, 255, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        with path.open("rb") as file:
            found[content_id(file)] = path.name
    return found


def board_of(files, folder, **changes):
    ids = tuple(list(files)[:8])
    now = datetime.datetime.now(datetime.UTC)
    values = {
        "look": 0, "status": {"state": "WAITING", "cycle": 3},
        "request": RequestView(3, "digest", ids, {}, now, 8), "done": frozenset(),
        "files": files, "classes": ("cat", "dog"), "fixed": False,
        "unsure": {"shown": "unsure", "also": ["unsure", "?"]},
        "bad": {"shown": "bad image", "also": ["bad image"]}, "parts": 1, "curve": (),
        "hint": None, "left": COUNT, "agreement": None,
        "suggestions": {"cycle": 2, "groups": []}, "guesses": {},
        "known": Known({}, {}, now), "preview": Previews(folder, files, (), 10**8),
        "computed": {},
    }  # fmt: skip
    return Board(**{**values, **changes})


class Running:
    """A server beside a loop that does nothing."""

    def __init__(self, tmp_path):
        (tmp_path / "work" / "labels").mkdir(parents=True, exist_ok=True)
        self.work, self.folder = tmp_path / "work", tmp_path / "photos"
        self.files = photos(self.folder) if not self.folder.exists() else None
        self.exchange = Exchange()
        self.answers = AnswerFiles(self.work / "labels")
        self.answers.load()
        site = server.Site(self.exchange, self.answers, self.work)
        self.server = server.start(site, self.exchange, "127.0.0.1", 0)

    def person(self, name="Anna"):
        return Person("127.0.0.1", self.server.port, self.server.token, name)

    def rows(self):
        found = []
        for path in sorted((self.work / "labels").glob("page_*.csv")):
            text = path.read_text("utf-8-sig")
            rows = csv.DictReader(io.StringIO(text))
            found += [(row["annotator"], row["id"], row["label"]) for row in rows]
        return found


@pytest.fixture
def running(tmp_path):
    one = Running(tmp_path)
    one.board = board_of(one.files, one.folder)
    one.exchange.show(one.board)
    yield one
    one.server.stop()
    assert not one.server._thread.is_alive()


def error_of(answer, status):
    assert answer[0] == status, answer
    line = json.loads(answer[2])["error"]
    assert line
    assert "\n" not in line
    assert "Traceback" not in line
    return line


# Who is let in


def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(running):
    person = running.person()
    path = f"/?token={running.server.token}"
    status, headers, content = person.ask("GET", path, headers={"Cookie": None})
    assert (status, headers["location"], content) == (303, "/", b"")
    cookie = headers["set-cookie"].lower()
    assert f"tavaal_{running.server.port}=" in cookie
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert person.ask("GET", "/")[0] == 200


@pytest.mark.parametrize(
    "cookie", [None, "", "tavaal_{port}=", "tavaal_{port}=wrong", "tavaal_1={token}",
               "tavaal_{port}={token}; tavaal_{port}=wrong", "tavaal_{port}={token}x",
               "tavaal_{port}=\xe4"],
)  # fmt: skip
def test_nothing_is_told_without_the_token(running, cookie):
    person = running.person()
    port, token = running.server.port, running.server.token
    sent = None if cookie is None else cookie.format(port=port, token=token)
    for path in (
        "/api/state",
        "/image/" + next(iter(running.files)),
        "/static/page.js",
        "/nowhere",
    ):
        error_of(person.ask("GET", path, headers={"Cookie": sent}), 401)
    error_of(person.ask("POST", "/api/train", {}, headers={"Cookie": sent}), 401)
    status, _, content = person.ask("GET", "/", headers={"Cookie": sent})
    assert (status, b"the command has printed" in content) == (401, True)
    wrong = person.ask("GET", "/?token=wrong", headers={"Cookie": sent})
    assert (wrong[0], "set-cookie" in wrong[1]) == (401, False)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.:{port}",
             "127.0.0.1:{port}:{port}", "127.0.0.2:{port}", "", None, "127.0.0.1:{port}\\@x"],
)  # fmt: skip
def test_a_foreign_host_is_refused(running, host):
    sent = None if host is None else host.format(port=running.server.port)
    for headers in ({"Host": sent}, {"Host": sent, "Origin": f"http://{sent}"}):
        answer = running.person().ask("GET", f"/?token={running.server.token}", headers=headers)
        assert answer[0] in (400, 403)  # 400: HTTP/1.1 without it is none.
        assert "set-cookie" not in answer[1]
        try:
            answer = running.person().ask("POST", "/api/train", {}, headers=headers)
        except ConnectionResetError:  # Its 400 was lost: the line was closed before the body came.
            assert host is None
        else:
            assert answer[0] in (400, 403)


def test_two_hosts_are_refused(running):
    port = running.server.port
    text = f"GET /api/state HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(text.encode())
        assert line.recv(1000).split()[1] in (b"400", b"403")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "LOCALHOST"])
def test_own_hosts_are_let_in(running, name):
    host = f"{name}:{running.server.port}"
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert running.person().ask("POST", "/api/train", {}, headers=headers)[0] == 200


def test_other_addresses_let_in_numbers_and_the_own_name_only():
    assert "192.168.0.7:80" in Hosts("0.0.0.0", 80)
    assert "[fe80::1]:80" in Hosts("::", 80)
    assert f"{socket.gethostname().lower()}:80" in Hosts("0.0.0.0", 80)
    assert "evil.example:80" not in Hosts("0.0.0.0", 80)
    assert "192.168.0.8:80" not in Hosts("192.168.0.7", 80)
    assert "192.168.0.7:80" in Hosts("192.168.0.7", 80)


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "https://127.0.0.1:{port}",
               "http://127.0.0.1:1", "http://localhost:{port}", ""],
)  # fmt: skip
def test_only_the_page_itself_may_send(running, origin):
    sent = None if origin is None else origin.format(port=running.server.port)
    body = {"who": "Anna", "answers": [{"id": next(iter(running.files)), "label": "cat"}]}
    for path in ("/api/answers", "/api/train", "/api/ask"):
        error_of(running.person().ask("POST", path, body, headers={"Origin": sent}), 403)
    assert running.rows() == []
    assert not running.exchange.is_training_wanted()


def test_a_form_of_another_site_is_no_json(running):
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        headers = {"Content-Type": kind}
        error_of(running.person().ask("POST", "/api/answers", {}, headers=headers), 415)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_other_sites_cannot_embed_anything(running, site):
    headers = {"Sec-Fetch-Site": site}
    for path in ("/api/state", "/image/" + next(iter(running.files)), "/static/page.css"):
        error_of(running.person().ask("GET", path, headers=headers), 403)
    assert running.person().ask("GET", "/", headers=headers)[0] == 200  # A link in a mail.


def test_every_answer_has_the_headers_of_security(running):
    name = next(iter(running.files))
    for path in ("/", "/api/state", f"/image/{name}", "/nowhere", "/static/page.js"):
        for cookie in ({}, {"Cookie": None}):
            _, headers, _ = running.person().ask("GET", path, headers=cookie)
            assert headers["content-security-policy"] == POLICY
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert "server" not in headers
            assert headers["cache-control"].startswith(("no-store", "private"))


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT"])
def test_other_methods_are_refused(running, method):
    assert running.person().ask(method, "/api/state")[0] == 405
    error_of(running.person().ask("POST", "/api/state", {}), 405)
    error_of(running.person().ask("GET", "/api/answers"), 405)


# What is opened


TRICKS = (
    "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd",
    "%2fetc%2fpasswd", "i" + "0" * 16, "i0123456789abcde", "I0123456789abcdef", "photo 0.png",
    "%00", "i0123456789abcdef%00.jpg", "..\\..\\x", "http://evil.example/x", "i" * 10_000, "",
)  # fmt: skip


def test_nothing_but_the_images_and_the_workdir_is_ever_opened(running, tmp_path):
    person = running.person()
    for name in running.files:  # What is imported late is so now.
        person.ask("GET", f"/image/{name}?size=full")
    (tmp_path / "secret.txt").write_text("secret")
    before = sorted(tmp_path.rglob("*"))
    OPENED.clear()
    WATCHING.set()
    try:
        for trick in TRICKS:
            quoted = trick.replace(" ", "%20").replace("\\", "%5c")
            for path in (f"/image/{quoted}", f"/static/{quoted}", f"/{quoted}"):
                assert person.ask("GET", path)[0] in (303, 307, 400, 404) or not trick
            name = next(iter(running.files))
            assert person.ask("GET", f"/image/{name}?size={quoted}")[0] in (400, 404)
            person.ask("GET", f"/api/request?who={quoted}")
            person.ask("GET", f"/api/map?kind={quoted}")
            body = {"who": "Anna", "answers": [{"id": trick, "label": "cat"}]}
            error_of(person.ask("POST", "/api/answers", body), 400)
            error_of(person.ask("POST", "/api/ask", {"ids": [trick]}), 400)
            body = {"who": trick, "answers": [{"id": name, "label": "cat"}]}
            assert person.ask("POST", "/api/answers", body)[0] in (200, 409)
        assert person.ask("GET", f"/image/{name}?size=thumbnail")[0] == 200
    finally:
        WATCHING.clear()
    allowed = (str(running.work / "labels"), str(running.work / ".thumbnails"))
    images = [str(running.folder / file) for file in running.files.values()]
    own = [path for path in OPENED if not path.startswith((sys.prefix, sys.base_prefix))]
    assert len(own) > 2
    assert [path for path in own if not path.startswith(allowed) and path not in images] == []
    new = set(tmp_path.rglob("*")) - set(before)
    assert all(path.parent in (running.work / "labels", running.work) or
               path.parent == running.work / ".thumbnails" for path in new)  # fmt: skip
    assert sorted(p.name for p in running.folder.iterdir()) == sorted(running.files.values())


def test_a_file_that_is_now_another_one_is_not_shown(running, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    ids = list(running.files)
    link, pipe, big, gone = (running.folder / running.files[name] for name in ids[:4])
    for path in (link, pipe, gone):
        path.unlink()
    link.symlink_to(secret)
    os.mkfifo(pipe)
    big.write_bytes(big.read_bytes() + b"x")
    OPENED.clear()
    WATCHING.set()
    try:
        for name in ids[:4]:
            for size in ("thumbnail", "full"):
                answer = running.person().ask("GET", f"/image/{name}?size={size}", timeout=60)
                error_of(answer, 404)
    finally:
        WATCHING.clear()
    assert str(big) in OPENED
    assert not {str(link), str(secret)} & set(OPENED)


def test_thumbnails_are_made_once_and_kept_by_the_browser(running):
    name = next(iter(running.files))
    status, headers, content = running.person().ask("GET", f"/image/{name}?size=thumbnail")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    assert headers["cache-control"] == "private, max-age=31536000, immutable"
    assert Image.open(io.BytesIO(content)).size == (30, 20)
    (running.folder / running.files[name]).unlink()
    assert running.person().ask("GET", f"/image/{name}")[2] == content
    error_of(running.person().ask("GET", f"/image/{name}?size=full"), 404)


# What is sent


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000,
             b'{"who": "Anna"}', b'{"who": "Anna", "answers": 1}',
             b'{"who": "Anna", "answers": [1]}', b'{"who": "Anna", "answers": [{}]}',
             b'{"who": "Anna", "answers": [{"id": 1, "label": "cat"}]}', b"NaN", b'"\x00"'],
)  # fmt: skip
def test_what_is_no_answer_is_refused(running, body):
    error_of(running.person().ask("POST", "/api/answers", body), 400)
    assert running.rows() == []


@pytest.mark.parametrize(
    "label", ["", " ", "a/b", "a\\b", "<b>", 'a"b', "x" * 101, "a\nb", "\u202e", "..", "nan", 1,
              ["cat"], {}, True, "\x00"],
)  # fmt: skip
def test_what_cannot_be_a_class_is_refused_as_a_whole(running, label):
    first, second = list(running.files)[:2]
    answers = [{"id": first, "label": "cat"}, {"id": second, "label": label}]
    error_of(running.person().ask("POST", "/api/answers", {"who": "A", "answers": answers}), 400)
    assert running.rows() == []


@pytest.mark.parametrize("who", [None, "", " ", 1, "x" * 101, "a\nb", "\u202ea"])
def test_who_has_no_name_cannot_answer(running, who):
    body = {"who": who, "answers": [{"id": next(iter(running.files)), "label": "cat"}]}
    error_of(running.person().ask("POST", "/api/answers", body), 409)


def test_a_formula_stays_text_and_words_keep_their_meaning(running):
    names = list(running.files)
    person = running.person("=cmd|' /C calc'!A0")
    person.say({names[0]: "-1", names[1]: "CAT", names[2]: "Unsure", names[3]: "dog "})
    text = next((running.work / "labels").glob("page_*.csv")).read_text("utf-8-sig")
    assert ",'-1,'=cmd" in text
    assert [label for _, _, label in running.rows()] == ["'-1", "cat", "Unsure", "dog"]
    assert running.person().state()["classes"] == ["cat", "dog", "-1"]
    again = AnswerFiles(running.work / "labels")
    again.load()
    assert again.of(person.name)[names[0]] == "-1"


def test_with_fixed_classes_there_are_no_others(running):
    name = next(iter(running.files))
    running.exchange.show(board_of(running.files, running.folder, fixed=True))
    body = {"who": "A", "answers": [{"id": name, "label": "owl"}]}
    assert "none of the classes" in error_of(
        running.person().ask("POST", "/api/answers", body), 400
    )
    assert running.person().say({name: "unsure"})["answered"] == 1


def test_a_body_that_is_too_long_is_not_read(running):
    person = running.person()
    for length, status in ((100 * 2**20, 413), (2**20 + 1, 413), ("9" * 30, 400), ("-1", 400)):
        headers = {"Content-Length": str(length)}
        assert person.ask("POST", "/api/answers", b"", headers=headers)[0] == status
    with socket.create_connection(("127.0.0.1", person.port)) as line:
        head = f"POST /api/answers HTTP/1.1\r\nHost: 127.0.0.1:{person.port}\r\n"
        head += f"Origin: http://127.0.0.1:{person.port}\r\nCookie: {person.cookie}\r\n"
        head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        line.sendall(head.encode())
        chunk, sent = b"10000\r\n" + b" " * 2**16 + b"\r\n", 0
        with contextlib.suppress(ConnectionError):
            while sent < 100 * 2**20:
                line.sendall(chunk)
                sent += 2**16
        assert sent < 50 * 2**20  # It was closed long before.
    assert person.state()["state"] == "WAITING"


# Many at once, and slow ones


def test_there_is_a_limit_of_streams(running, monkeypatch):
    monkeypatch.setattr(events, "MOST_STREAMS", 2)
    person = running.person()
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(stream(person)) for _ in range(2)]
        assert all(b"200 OK" in head and b"text/event-stream" in head for _, head in lines)
        for _ in range(5):
            with stream(person) as (_, head):
                assert b"503" in head
        assert person.state()["state"] == "WAITING"
        running.exchange.changed()
        for line, head in lines:
            assert version_in(line, head, running.exchange.version) == running.exchange.version
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with stream(person) as (_, head):
            if b"200 OK" in head:
                return
        time.sleep(0.1)
    raise AssertionError("places of closed pages are not free again")


@contextlib.contextmanager
def stream(person):
    """A stream of events: its connection, and what came first."""
    with socket.create_connection(("127.0.0.1", person.port), timeout=60) as line:
        text = f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{person.port}\r\n"
        line.sendall(f"{text}Cookie: {person.cookie}\r\n\r\n".encode())
        yield line, line.recv(4096)


def version_in(line, text, wanted):
    """The newest version that a stream tells until it is the wanted one; the first is at once."""
    end, found = time.monotonic() + PATIENCE, -1
    line.settimeout(PATIENCE)
    while True:
        for part in text.split(b"data: ")[1:]:
            found = json.loads(part.partition(b"\n")[0])["version"]
        if found == wanted or not text or time.monotonic() > end:
            return found
        text = line.recv(4096)


@pytest.mark.slow
def test_1000_streams_leave_the_page_alive(running):
    person, lines = running.person(), []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 4096:
        pytest.skip("so many open files are not allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    try:
        for _ in range(1000):
            line = socket.create_connection(("127.0.0.1", person.port), timeout=60)
            text = f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{person.port}\r\n"
            line.sendall(f"{text}Cookie: {person.cookie}\r\n\r\n".encode())
            lines.append(line)
        assert person.state()["state"] == "WAITING"  # While all are open.
        image = next(iter(running.files))
        assert person.say({image: "cat"})
    finally:
        for line in lines:
            line.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    person.until(lambda s: s["state"] == "WAITING")
    assert running.rows() == [("Anna", image, "cat")]


def test_people_begin_with_parts_of_their_own(running):
    part = lambda name: running.person(name).get(f"/api/request?who={name}")["part"]
    assert [part("Anna"), part("Bob")] == [0, 0]
    running.exchange.show(dataclasses.replace(running.board, parts=2))
    assert [part(name) for name in ("Anna", "Bob", "anna", "Cid")] == [1, 2, 1, 1]


@pytest.mark.parametrize(
    "text", [b"", b"GET", b"GET /api/state HTTP/1.1\r\nHost: 127.0.0.1", b"\x16\x03\x01\x02\x00"]
)
def test_half_sent_requests_are_ended(running, monkeypatch, text):
    monkeypatch.setattr(security, "_PATIENCE", 0.3)
    person = running.person()
    with contextlib.ExitStack() as stack:
        lines = []
        for _ in range(50):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", person.port)))
            line.sendall(text)
            line.settimeout(10)
            lines.append(line)
        assert person.state()["state"] == "WAITING"
        for line in lines:
            with contextlib.suppress(ConnectionError):
                while line.recv(4096):
                    pass


def test_a_second_request_that_is_half_sent_is_ended_too(running, monkeypatch):
    monkeypatch.setattr(security, "_PATIENCE", 0.3)
    person = running.person()
    head = f"GET /static/page.css HTTP/1.1\r\nHost: 127.0.0.1:{person.port}\r\n"
    with socket.create_connection(("127.0.0.1", person.port), timeout=60) as line:
        line.sendall(f"{head}Cookie: {person.cookie}\r\n\r\n".encode() + b"GET /api")
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while line.recv(2**16):
                pass
        assert time.monotonic() - start < 15  # Without it a connection is kept for 20 s.


def test_a_body_that_does_not_come_is_not_waited_for(running, monkeypatch):
    monkeypatch.setattr(security, "_PATIENCE", 0.3)
    answer = running.person().ask(
        "POST", "/api/answers", b'{"who"', headers={"Content-Length": "100"}
    )
    error_of(answer, 408)


def test_a_page_left_open_over_a_restart_is_told_and_loses_nothing(running, tmp_path):
    old, names = running.person(), list(running.files)
    old.say({names[0]: "cat"}, "digest")
    running.server.stop()
    after = Running(tmp_path)
    try:
        # Its cookie is another one's, and the loop has not yet looked at the folder.
        stale = Person("127.0.0.1", after.server.port, running.server.token, "Anna")
        stale.cookie = f"tavaal_{after.server.port}={running.server.token}"
        assert "has printed" in error_of(stale.ask("GET", "/api/state"), 401)
        body = {"who": "Anna", "answers": [{"id": names[1], "label": "cat"}]}
        error_of(stale.ask("POST", "/api/answers", body), 401)
        anew = after.person()
        assert anew.state()["state"] == "STARTING"
        error_of(anew.ask("POST", "/api/answers", body), 503)
        after.exchange.show(running.board)
        # What the page kept is sent again, with the digest of the request that it knows.
        anew.say({names[0]: "cat", names[1]: "dog"}, "an older digest")
        assert anew.get("/api/request?who=Anna")["answers"] == {names[0]: "cat", names[1]: "dog"}
        assert len(after.rows()) == 2
    finally:
        after.server.stop()


# People


def test_two_people_at_once_see_their_own_and_every_answer_is_there_once(running):
    names, people = list(running.files)[:8], [running.person(n) for n in ("Anna", "Bob")]
    faults, turns = [], 2

    def work(person, shift):
        try:
            for turn in range(turns):
                for place, name in enumerate(names):
                    label = ("cat", "dog")[(place + shift + turn) % 2]
                    for _ in range(2):  # The second is a repetition: its reply was lost.
                        person.say({name: label})
        except Exception as error:  # Told by the test's own thread.
            faults.append(error)

    threads = [threading.Thread(target=work, args=(p, n)) for n, p in enumerate(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    rows = running.rows()
    assert len(rows) == len(people) * turns * len(names)
    for shift, person in enumerate(people):
        expected = {n: ("cat", "dog")[(p + shift + turns - 1) % 2] for p, n in enumerate(names)}
        assert person.get(f"/api/request?who={person.name}")["answers"] == expected
    assert people[0].state()["answered"] == 8


def test_the_loop_is_woken_when_there_is_enough(running):
    names, person = list(running.files), running.person()
    assert person.say(dict.fromkeys(names[:7], "cat"))["answered"] == 7
    assert not running.exchange.wait(0)
    assert person.say({names[6]: None})["answered"] == 6
    assert person.say({names[6]: "?", names[9]: "cat"})["answered"] == 7
    assert not running.exchange.wait(0)
    assert person.say({names[7]: "bad image"}) == {"saved": 1, "answered": 8, "digest": "digest"}
    assert running.exchange.wait(0)


def test_a_board_counts_what_was_read_and_the_server_what_came_since(running):
    names, person, exchange = list(running.files), running.person(), running.exchange
    person.say({names[0]: "cat"})
    exchange.look()  # The loop reads the files, and meanwhile:
    person.say({names[1]: "cat"})
    exchange.show(
        board_of(running.files, running.folder, look=exchange.looks, done=frozenset([names[0]]))
    )
    assert person.state()["answered"] == 2
    assert person.say({names[0]: None})["answered"] == 1


def test_every_change_is_a_version(running):
    exchange, person = running.exchange, running.person()
    version = person.state()["version"]
    for act in (
        lambda: person.say({next(iter(running.files)): "cat"}),
        lambda: exchange.complain("labels/a.csv is empty"),
        exchange.train,
        lambda: exchange.show(board_of(running.files, running.folder)),
    ):
        act()
        assert person.state()["version"] > version
        version = person.state()["version"]


def test_training_is_wished_once_and_not_while_it_runs(running):
    person, exchange = running.person(), running.exchange
    person.post("/api/train", {})
    assert exchange.is_training_wanted()
    exchange.train()
    state = person.state()
    assert (state["state"], state["training"]) == ("TRAINING", True)
    assert not exchange.is_training_wanted()
    person.post("/api/train", {})
    assert not exchange.is_training_wanted()


def test_a_confirmed_doubt_does_not_come_back(running):
    name, person = next(iter(running.files)), running.person()
    row = {"id": name, "file": "x", "label": "cat", "probability": 0.01, "instead": "dog"}
    other = {**row, "id": list(running.files)[1]}
    now = datetime.datetime.now(datetime.UTC)
    computed = {"doubts": ("a", lambda: {"rows": [row, other]})}
    known = Known({name: "cat"}, {}, now - datetime.timedelta(days=1))
    board = board_of(running.files, running.folder, computed=computed, known=known)
    running.exchange.show(board)
    until_ready(person, "/api/doubts")
    assert person.get("/api/doubts")["rows"] == [row, other]
    person.say({name: "cat"})
    person.say({name: "cat"})
    assert len(running.rows()) == 1
    assert person.get("/api/doubts")["rows"] == [other]
    person.say({other["id"]: "dog"})
    assert person.get("/api/doubts")["rows"] == []
    # In the next cycle, which knows these answers, only the confirmed one stays away.
    later = Known({name: "cat"}, {}, now + datetime.timedelta(days=1))
    running.exchange.show(board_of(running.files, running.folder, computed=computed, known=later))
    assert person.get("/api/doubts")["rows"] == [other]


def test_a_map_that_cannot_be_computed_is_told(running):
    def fail():
        raise UserError("no room\nfor it")

    computed = {"pca": ("a", fail)}
    running.exchange.show(board_of(running.files, running.folder, computed=computed))
    person = running.person()
    end = time.monotonic() + PATIENCE
    while (answer := person.ask("GET", "/api/map?kind=pca"))[0] == 200:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert "no room for it" in error_of(answer, 500)
    error_of(person.ask("GET", "/api/map?kind=tsne"), 404)


def until_ready(person, path):
    end = time.monotonic() + PATIENCE
    while person.get(path)["state"] != "ready" and time.monotonic() < end:
        time.sleep(0.02)


def test_suggestions_leave_out_what_is_asked_or_answered(running):
    names, person = list(running.files), running.person()
    group = {"class": "cat", "images": [{"id": n, "confidence": 0.9} for n in names]}
    shown = {"cycle": 2, "groups": [group]}
    running.exchange.show(board_of(running.files, running.folder, suggestions=shown))
    person.say({names[9]: "cat"})
    found = person.get("/api/suggestions?who=Anna")
    assert [i["id"] for i in found["groups"][0]["images"]] == [names[8], *names[10:]]
    assert names[9] in str(person.get("/api/suggestions?who=Bob"))


def test_a_full_disk_is_told_and_nothing_counts(running, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    name, person = next(iter(running.files)), running.person()
    body = {"who": "Anna", "answers": [{"id": name, "label": "cat"}]}
    monkeypatch.setattr(os, "fsync", full)
    assert "No space" in error_of(person.ask("POST", "/api/answers", body), 507)
    assert "No space" in error_of(person.ask("POST", "/api/ask", {"ids": [name]}), 507)
    monkeypatch.undo()
    assert person.state()["answered"] == 0
    assert person.say({name: "cat"})["answered"] == 1


def test_a_port_that_is_taken_is_told(running):
    site = server.Site(Exchange(), running.answers, running.work)
    with pytest.raises(UserError, match="give another --port"):
        server.start(site, Exchange(), "127.0.0.1", running.server.port)
    with pytest.raises(UserError, match="give another"):
        server.start(site, Exchange(), "not an address", None)
