"""The live page in a browser, with a small server of the same routes in the server's place."""

import http.server
import io
import json
import re
import threading
import time
import urllib.parse

import live_people
import people
import pytest
import test_labelling_page as still
from PIL import Image
from test_labelling_page import selenium  # noqa: F401

from tavaal_jax.labelling.labels import answers
from tavaal_jax.labelling.page import assets

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def jpeg(name):
    colour = tuple(hash((name, k)) % 256 for k in range(3))
    out = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(out, "JPEG")
    return out.getvalue()


class Server:
    """What a page asks for, kept in memory; `down` and `refuses` make it fail."""

    def __init__(self):
        self.answers, self.posts, self.asked, self.trained = {}, [], [], 0
        self.number, self.images = 1, [f"a{k}" for k in range(12)]
        self.folds, self.refuses, self.version, self.down = {}, set(), 0, False
        self.suggested = [
            {"class": "cat", "images": [{"id": f"s{k}", "confidence": 0.99 - k / 100}
                                        for k in range(8)]},
            {"class": "dog", "images": [{"id": "t0", "confidence": 0.8}]},
        ]  # fmt: skip
        self.doubtful = [
            {"id": f"d{k}", "file": f"d{k}.jpg", "label": "cat", "probability": 0.01 * k,
             "instead": "dog"}
            for k in range(3)
        ]  # fmt: skip
        self.more = {}
        self.changed = threading.Condition()
        self.http = None
        self.start(0)

    def start(self, port):
        outer = self

        class Handler(_Handler):
            server_of_page = outer

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def stop(self):
        self.down = True
        with self.changed:
            self.changed.notify_all()
        self.http.shutdown()
        self.http.server_close()

    def restart(self):
        self.stop()
        self.down = False
        self.start(self.port)

    def change(self, **values):
        with self.changed:
            vars(self).update(values)
            self.version += 1
            self.changed.notify_all()

    def state(self):
        mine = sum(name in self.images for given in self.answers.values() for name in given)
        return {
            "state": "WAITING", "workdir": "w", "request": self.number,
            "digest": f"digest {self.number}", "asked": len(self.images), "answered": mine,
            "classes": ["cat", "dog"], "fixed": False,
            "unsure": {"shown": "unsure", "also": ["unsure"]},
            "bad": {"shown": "bad image", "also": ["bad image"]}, "parts": 1,
            "curve": [
                {"labelled": 40, "n": 30, "accuracy": 0.6, "low": 0.42, "high": 0.75},
                {"labelled": 80, "n": 60, "accuracy": 0.81, "low": 0.7, "high": 0.89},
            ],
            "hint": None, "seconds_to_model": 3600.0, "left": 1880,
            "agreement": {"alpha": 0.82, "n": 40}, "training": False, "version": self.version,
            "problem": None, **self.more,
        }  # fmt: skip


class _Handler(http.server.BaseHTTPRequestHandler):
    server_of_page: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, content, kind="application/json", status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(content)

    def json(self, value, status=200):
        self.reply(json.dumps(value).encode(), status=status)

    def parse_request(self):
        # A connection that was kept open ends with the server, also where a request comes on it.
        if self.server_of_page.down:
            self.close_connection = True
            return False
        return super().parse_request()

    def do_GET(self):
        server, parts = self.server_of_page, urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        if parts.path == "/":
            self.reply(assets.live_html().encode(), "text/html; charset=utf-8")
        elif parts.path.startswith("/static/"):
            kind, content = assets.live_files()[parts.path.removeprefix("/static/")]
            self.reply(content, kind)
        elif parts.path.startswith("/image/"):
            self.reply(jpeg(parts.path), "image/jpeg")
        elif parts.path == "/api/state":
            self.json(server.state())
        elif parts.path == "/api/request":
            given = server.answers.get(query["who"], {})
            self.json({
                "request": server.number, "digest": f"digest {server.number}",
                "images": [{"id": k, "file": f"{k}.jpg", "fold": server.folds.get(k, [])}
                           for k in server.images],
                "answers": {k: given[k] for k in server.images if given.get(k)},
            })  # fmt: skip
        elif parts.path == "/api/suggestions":
            self.json({"cycle": 1, "groups": server.suggested})
        elif parts.path == "/api/doubts":
            self.json({"state": "ready", "rows": server.doubtful})
        elif parts.path == "/api/map":
            names = [f"m{k}" for k in range(100)]
            self.json({
                "state": "ready", "ids": names, "x": [k % 10 for k in range(100)],
                "y": [k // 10 for k in range(100)], "label": ["cat" if k < 30 else None
                for k in range(100)], "picked": [0 if k < 30 else None for k in range(100)],
            })  # fmt: skip
        elif parts.path == "/api/events":
            self.events()

    def events(self):
        server = self.server_of_page
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        told = -1
        while not server.down:
            if told != server.version:
                told = server.version
                text = f"event: state\ndata: {json.dumps({'version': told})}\n\n"
                try:
                    self.wfile.write(text.encode())
                    self.wfile.flush()
                except OSError:
                    return
            with server.changed:
                server.changed.wait(0.5)

    def do_POST(self):
        server = self.server_of_page
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/train":
            server.trained += 1
            return self.json({})
        if self.path == "/api/ask":
            server.asked += body["ids"]
            return self.json({"asked": len(server.asked)})
        server.posts.append(body)
        if "status" in server.more:
            return self.json({"error": "not now"}, status=server.more["status"])
        wrong = [a["id"] for a in body["answers"] if a["id"] in server.refuses]
        if wrong:
            return self.json({"error": f"There is no image {wrong[0]}."}, status=400)
        mine = server.answers.setdefault(body["who"], {})
        mine.update({a["id"]: a["label"] for a in body["answers"]})
        return self.json({"saved": len(body["answers"]), "answered": len(mine)})


# The files


def test_the_page_needs_no_inline_script_or_style():
    page = still.Page(assets.live_html())
    names = set(assets.live_files())
    scripts = page.all("script")
    assert [*page.scripts] == [""] * len(scripts)
    asked = [script["src"] for script in scripts] + [link["href"] for link in page.all("link")]
    assert sorted(asked) == sorted(f"/static/{name}" for name in names)
    assert "style" not in {tag for tag, _ in page.tags}
    attributes = {name for _, found in page.tags for name in found}
    assert not {name for name in attributes if name == "style" or name.startswith("on")}
    assert "$" not in assets.live_html()


def test_every_id_that_a_script_asks_for_is_in_the_page():
    page = still.Page(assets.live_html())
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))
    files = {name: content.decode() for name, (_, content) in assets.live_files().items()}
    for name, text in files.items():
        assert set(re.findall(r'byId\("([\w-]+)"\)', text)) <= set(ids), name
        assert len(text.splitlines()) <= 300, name
    fields = {found["id"] for found in page.all("input")}
    assert {found["for"] for found in page.all("label") if "for" in found} | {"fold-all"} == fields
    assert all(found["type"] == "button" for found in page.all("button"))
    kinds = {name: media.split(";")[0] for name, (media, _) in assets.live_files().items()}
    assert kinds["live.js"] == "text/javascript"
    assert kinds["page.css"] == "text/css"
    assert kinds["icon.svg"] == "image/svg+xml"


# In a browser


@pytest.fixture
def server():
    found = Server()
    yield found
    found.stop()


@pytest.fixture
def visit(selenium, server, tmp_path):  # noqa: F811
    """`() -> Browser` at the page, whose name is Ann."""
    browsers = []

    def begin(name="Ann", **settings):
        folder = tmp_path / str(len(browsers))
        browsers.append(Browser(selenium, folder, **settings))
        browsers[-1].driver.get(f"http://127.0.0.1:{server.port}/")
        if name:
            browsers[-1].find("name").send_keys(name, browsers[-1].keys.ENTER)
            browsers[-1].until(lambda b: b.ask("images.length") == len(server.images))
        return browsers[-1]

    yield begin
    for browser in browsers:
        faults = [entry for entry in browser.driver.get_log("browser") if not _is_expected(entry)]
        browser.driver.quit()
        assert faults == []


def _is_expected(entry):
    """A request that failed, which tests arrange."""
    return entry["source"] == "network"


class Browser(still.Browser):
    def until(self, holds):
        end = time.monotonic() + live_people.PATIENCE
        while not holds(self):
            assert time.monotonic() < end, self.ask("document.body.innerText.slice(0, 600)")
            time.sleep(0.05)

    def saved(self):
        self.until(lambda b: b.text("save") == "Saved")


@pytest.mark.slow
def test_answers_are_saved_as_they_are_given(visit, server):
    browser = visit()
    browser.press("1", "2", browser.keys.CONTROL + "a" + browser.keys.NULL, "u", "z")
    browser.saved()
    assert {k: v for k, v in server.answers["Ann"].items() if v} == {"a0": "cat", "a1": "dog"}
    assert len(server.answers["Ann"]) == 12  # Those taken back are null.
    assert all(len(post["answers"]) <= 200 for post in server.posts)
    browser.driver.refresh()  # The name is asked once.
    browser.until(lambda b: b.text("count") == "2 of 12")
    browser.press(browser.keys.SHIFT + "z" + browser.keys.NULL)
    browser.saved()
    assert server.answers["Ann"] == {f"a{k}": "unsure" for k in range(12)}


@pytest.mark.slow
def test_an_answer_outlives_a_server_that_is_away(visit, server):
    browser = visit()
    server.stop()
    browser.press("1", "2")
    browser.until(lambda b: b.text("save") == "2 not saved")
    browser.until(lambda b: "2 answers not saved yet" in b.text("offline"))
    assert browser.warns()
    assert browser.text("count") == "2 of 12"
    server.restart()
    browser.saved()
    browser.until(lambda b: b.text("offline") == "")
    assert server.answers["Ann"] == {"a0": "cat", "a1": "dog"}
    assert not browser.warns()
    browser.until(lambda b: b.ask("live.stream.readyState") == 1)
    server.change(more={"problem": "birds.csv cannot be read"})  # Events come as before.
    browser.until(lambda b: b.text("problem") == "birds.csv cannot be read")


@pytest.mark.slow
def test_what_is_not_acknowledged_is_kept_over_a_reload_and_the_next_request(visit, server):
    browser = visit()
    server.more = {"status": 503}
    browser.press("1", "2", "z", "u")
    browser.until(lambda b: b.text("save") == "2 not saved")
    browser.driver.refresh()
    browser.until(lambda b: b.text("count") == "2 of 12")
    browser.until(lambda b: b.text("save") == "2 not saved")  # Once it was refused again.
    server.change(number=2, images=[f"b{k}" for k in range(5)])
    browser.until(lambda b: b.text("count") == "0 of 5")
    assert browser.text("said") == "New images: cycle 2, 5 images."
    browser.press("2")
    server.change(more={})
    browser.find("save").click()
    browser.saved()
    assert server.answers["Ann"] == {"a0": "cat", "a1": "unsure", "b0": "dog"}
    browser.press("z", "z")  # Of the request before: taken back at the server, too.
    browser.saved()
    assert server.answers["Ann"] == {"a0": "cat", "a1": None, "b0": None}


@pytest.mark.slow
def test_an_old_token_says_what_to_do_and_an_unusable_name_is_asked_again(visit, server):
    browser = visit()
    server.more = {"status": 401}
    browser.press("1")
    browser.until(lambda b: "Open the address again" in b.text("offline"))
    server.more = {"status": 409}
    browser.until(lambda b: b.text("who-error") == "not now")
    server.more = {}
    browser.find("name").send_keys(" Lee", browser.keys.ENTER)
    browser.saved()
    assert server.answers["Ann Lee"] == {"a0": "cat"}
    assert browser.text("person") == "Ann Lee"


@pytest.mark.slow
def test_an_answer_that_is_refused_does_not_hold_up_the_others(visit, server):
    browser = visit()
    server.refuses = {"a7"}
    browser.press(browser.keys.CONTROL + "a" + browser.keys.NULL, "1")
    browser.saved()
    assert server.answers["Ann"] == {f"a{k}": "cat" for k in range(12) if k != 7}
    assert "1 answer refused by the server: There is no image a7." in browser.text("offline")


@pytest.mark.slow
def test_suggestions_are_accepted_but_for_two(visit, server):
    browser = visit()
    browser.find("view-suggestions").click()
    browser.until(lambda b: b.text("agree") == "All 8 are cat")
    for k in (1, 4):
        browser.find(f"suggested-tiles{k}").click()
    assert browser.text("agree") == "These 6 are cat"
    browser.press(browser.keys.ENTER)
    browser.saved()
    assert server.answers["Ann"] == {f"s{k}": "cat" for k in (0, 2, 3, 5, 6, 7)}
    assert browser.ask("suggested.items.map(image => image.id)") == ["s1", "s4"]
    browser.press("2")  # What was taken out is another class.
    browser.until(lambda b: b.text("agree") == "This is dog")
    browser.find("agree").click()
    browser.saved()
    assert {k: v for k, v in server.answers["Ann"].items() if v == "dog"} == dict.fromkeys(
        ("s1", "s4", "t0"), "dog"
    )
    browser.press("z", "z")
    browser.saved()
    assert [server.answers["Ann"][k] for k in ("s0", "s1", "t0")] == ["cat", None, None]
    assert browser.ask("suggested.items.map(image => image.id)") == ["s1", "s4"]


@pytest.mark.slow
def test_near_duplicates_get_one_answer_on_wish(visit, server):
    server.folds = {"a1": ["f0", "f1"]}
    browser = visit()
    browser.press("1", "1")
    browser.saved()
    assert server.answers["Ann"] == {"a0": "cat", "a1": "cat"}
    browser.tile(2).click()
    assert browser.tile(2).text.startswith("2 +2")
    assert browser.text("fold-text") == "One answer for this and 2 near-duplicates"
    browser.find("fold-all").click()
    browser.press("2")
    browser.saved()
    assert server.answers["Ann"] == {"a0": "cat"} | dict.fromkeys(("a1", "f0", "f1"), "dog")
    browser.press("z")
    browser.saved()
    assert server.answers["Ann"] == {"a0": "cat", "a1": "cat", "f0": None, "f1": None}


@pytest.mark.slow
def test_doubts_are_confirmed_or_mended(visit, server):
    browser = visit()
    browser.find("view-doubts").click()
    browser.until(lambda b: b.ask("doubted.items.length") == 3)
    assert browser.find("doubted-tiles0").text == "cat → dog?"
    browser.press(browser.keys.ENTER)  # It was right.
    browser.find("mend").click()
    browser.saved()
    assert server.answers["Ann"] == {"d0": "cat", "d1": "dog"}
    assert browser.ask("doubted.items.map(row => row.id)") == ["d2"]
    browser.press("z")
    browser.saved()
    assert server.answers["Ann"]["d1"] == "cat"


@pytest.mark.slow
def test_a_frame_on_the_map_asks_for_what_is_in_it(visit, server):
    browser = visit()
    browser.find("view-map").click()
    browser.until(lambda b: b.ask("atlas.points.length") == 100)
    assert browser.text("legend").split("\n") == ["cat 30", "no answer 70"]
    assert browser.text("place") == browser.text("file") == ""  # Nothing is chosen yet.
    assert not browser.driver.find_element("css selector", ".view .none").is_displayed()
    chart = browser.find("chart")
    left, top = -chart.size["width"] // 2, -chart.size["height"] // 2
    across = still.mouse(browser).move_to_element_with_offset(chart, left + 3, top + 3)
    step = chart.size["width"] // 9
    across.click_and_hold().move_by_offset(step + 20, 30).release().perform()
    found = browser.ask("mapped.items.map(point => point.id)")
    assert found == ["m90", "m91"]
    browser.find("ask").click()
    browser.until(lambda b: b.text("said").startswith("2 images will be asked for next"))
    assert server.asked == ["m90", "m91"]
    left, top = -chart.size["width"] // 2, -chart.size["height"] // 2  # The notice takes room.
    still.mouse(browser).move_to_element_with_offset(chart, left + 12, top + 14).click().perform()
    assert browser.ask("mapped.items.map(point => point.id)") == ["m90"]
    assert browser.find("large").get_attribute("src").endswith("/image/m90?size=full")
    # By keys alone: a cross from the middle, and a frame.
    chart.send_keys(browser.keys.ENTER)
    middle = browser.ask("mapped.items.map(point => point.id)")
    assert middle[0] in {"m44", "m45", "m54", "m55"}
    chart.send_keys(browser.keys.SHIFT + browser.keys.ARROW_UP * 9 + browser.keys.ARROW_LEFT * 9)
    assert len(browser.ask("mapped.items.map(point => point.id)")) >= 2
    browser.find("map-colours").send_keys("unlabelled")
    assert browser.text("legend").split("\n") == ["unlabelled 70", "answered 30"]


@pytest.mark.slow
def test_where_we_stand_and_training_at_once(visit, server):
    browser = visit()
    facts = browser.text("facts")
    for text in ("81 %", "70 % to 89 %, 60 test images", "0 of 12", "1,880", "0.82", "40 images"):
        assert text in facts
    assert browser.find("curve").get_attribute("aria-label").endswith("80 labels 81 %")
    assert len(browser.driver.find_elements("css selector", "#curve circle")) == 2
    assert browser.text("model") == "The model waits for answers; it takes about 60 min."
    browser.find("train").click()
    browser.until(lambda b: server.trained == 1)
    server.change(more={"training": True, "seconds_to_model": None})
    browser.until(lambda b: b.text("model") == "The model learns; next images soon.")
    assert not browser.find("train").is_enabled()
    server.change(more={"classes": ["cat", "dog", "owl"], "state": "FINISHED"})
    browser.until(lambda b: b.text("model") == "Finished: nothing is left to ask.")
    assert [name for _, name in browser.buttons()] == ["cat", "dog", "owl"]


@pytest.mark.slow
def test_two_people_at_once_see_their_own_answers(visit, server):
    ann, bo = visit(), visit("Bo", size=(420, 860), dark=True)
    ann.press("1", "1")
    bo.press("2")
    ann.saved()
    bo.saved()
    server.change(left=7)
    assert server.answers == {"Ann": {"a0": "cat", "a1": "cat"}, "Bo": {"a0": "dog"}}
    assert (ann.text("count"), bo.text("count")) == ("2 of 12", "1 of 12")
    root = "document.documentElement"
    assert bo.ask(f"{root}.scrollWidth - {root}.clientWidth") == 0
    for name in ("suggestions", "doubts", "map", "label"):
        bo.find(f"view-{name}").click()
        assert bo.ask(f"{root}.scrollWidth - {root}.clientWidth") == 0
        assert bo.find("pad").is_displayed()


@pytest.mark.slow
def test_with_the_real_server_the_next_request_comes_by_itself(selenium, tmp_path):  # noqa: F811
    truth = people.folder(tmp_path / "images")
    config = live_people.config_file(tmp_path)
    with live_people.Command(tmp_path / "images", tmp_path / "work", config) as command:
        browser = Browser(selenium, tmp_path)
        try:
            browser.driver.get(f"http://{command.host}:{command.port}/?token={command.token}")
            browser.find("name").send_keys("Ann", browser.keys.ENTER)
            browser.until(lambda b: b.ask("images.length") == 16)
            files = browser.ask("images.map(image => image.file)")
            for name in ("cat", "dog"):
                places = [place for place, file in enumerate(files) if truth[file] == name]
                browser.driver.execute_script("grid.select(arguments[0]); grid.told()", places)
                browser.type_class(name)
            browser.saved()
            given = browser.ask("Object.fromEntries(images.map(i => [i.file, answerTo(i)]))")
            assert given == {file: truth[file] for file in files}
            browser.until(lambda b: b.ask("request.name") == "cycle_001")
            assert browser.text("count") == "0 of 8"
            assert browser.text("said") == "New images: cycle 1, 8 images."
            assert len(browser.tiles()) == 8
            for view in ("suggestions", "doubts", "map"):
                browser.find(f"view-{view}").click()
            browser.until(lambda b: b.ask("atlas.points.length") > 40)
            faults = [e for e in browser.driver.get_log("browser") if e["source"] != "network"]
            assert faults == []
        finally:
            browser.driver.quit()
    said = answers.read(tmp_path / "work" / "labels").answers
    assert {(a.name, a.label, a.annotator) for a in said} == {
        (file, truth[file], "Ann") for file in files
    }
