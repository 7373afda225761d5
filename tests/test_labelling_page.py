"""The labelling page: what it holds, and how it is used in a browser where there is one."""

import base64
import csv
import html.parser
import io
import itertools
import json
import pathlib
import re
import shutil
import statistics
import time

import people
import pytest
from PIL import Image

from tavaal_jax.labelling.labels import answers
from tavaal_jax.labelling.page import static
from tavaal_jax.labelling.page.static import RequestItem

EVIL = "<img src=x onerror=alert(1)>.png"
ODD = ['say "meow"', "it's", "a & b", "</script><script>alert(1)</script>"]
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
WORDS = {"unsure": ("unsure", "skip", "?"), "bad": ("bad", "bad image")}
VOID = {"meta", "img", "br", "link", "input"}


def jpeg(k=0, side=(60, 40)):
    out = io.BytesIO()
    Image.new("RGB", side, (k * 37 % 256, k * 91 % 256, 128)).save(out, "JPEG")
    return out.getvalue()


def asked_of(*files, guess=""):
    folder = pathlib.Path("/images")
    return [RequestItem(f"i{k:016x}", name, folder / name, guess) for k, name in enumerate(files)]


def page_of(*files, number=3, classes=("cat", "dog"), guess="", **changes):
    asked = asked_of(*files, guess=guess)
    thumbnails = [jpeg(k) for k in range(len(asked))]
    return static.page_html(number, asked, thumbnails, classes, **{**WORDS, **changes})


class Page(html.parser.HTMLParser):
    """What a page holds; fails where a tag is not closed, or not in its place."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.scripts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} closes another tag"

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data
        else:
            self.text.append(data)

    def all(self, name):
        return [names for tag, names in self.tags if tag == name]


# The page


def test_nothing_comes_from_elsewhere():
    text = page_of("a.jpg", "b.jpg")
    page = Page(text)
    assert "://" not in text
    assert {"http-equiv": "Content-Security-Policy", "content": POLICY} in page.all("meta")
    assert not {"link", "iframe", "object", "form", "base"} & {tag for tag, _ in page.tags}
    assert all(set(script) <= {"type", "id"} for script in page.all("script"))
    assert not [name for _, names in page.tags for name in names if name.startswith("on")]
    assert "url(" not in text
    assert ("html", {"lang": "en"}) in page.tags


def test_pictures_are_in_the_page():
    pictures = json.loads(Page(page_of("a.jpg", "b.jpg")).scripts[1])
    assert {name: base64.b64decode(text) for name, text in pictures.items()} == {
        f"i{k:016x}": jpeg(k) for k in range(2)
    }


def test_a_picture_that_cannot_be_shown_is_left_out():
    text = static.page_html(0, asked_of("a.jpg", "b.jpg"), [b"", jpeg()], ("cat",))
    assert [*json.loads(Page(text).scripts[1])] == ["i0000000000000001"]


def test_an_order_of_display_is_a_permutation():
    request = json.loads(Page(page_of("a.jpg", "b.jpg", "c.jpg", order=[2, 0, 1])).scripts[0])
    assert request["order"] == [2, 0, 1]
    assert [image["file"] for image in request["images"]] == ["a.jpg", "b.jpg", "c.jpg"]
    with pytest.raises(ValueError, match="no permutation of 3"):
        page_of("a.jpg", "b.jpg", "c.jpg", order=[2, 0, 2])


def test_a_request_of_the_loop_shows_similar_images_together(tmp_path):
    truth = people.folder(tmp_path / "images", count=24)
    people.run(people.config(tmp_path / "images", tmp_path), tmp_path / "work")
    page = Page((tmp_path / "work" / "to_label" / "cycle_000" / "index.html").read_text("utf-8"))
    request = json.loads(page.scripts[0])
    names = [image["file"] for image in request["images"]]
    assert names == [row["file"] for row in people.requested(tmp_path / "work", 0)]
    shown = [truth[names[place]] for place in request["order"]]
    assert len(shown) == 16
    assert (
        sum(a != b for a, b in itertools.pairwise(shown)) == 1
    )  # First one class, then the other.


def test_names_stay_text():
    text = page_of(EVIL, 'b" onclick="x.jpg', "</script>.jpg", classes=ODD)
    page = Page(text)
    assert len(page.scripts) == 3
    request = json.loads(page.scripts[0])
    assert [image["file"] for image in request["images"]] == [
        EVIL, 'b" onclick="x.jpg', "</script>.jpg"
    ]  # fmt: skip
    assert request["classes"] == ODD
    assert not any("onerror" in names or "onclick" in names for _, names in page.tags)
    assert "<" not in page.scripts[0]


def test_everything_can_be_reached_by_name():
    page = Page(page_of("a.jpg"))
    labels = {names["for"] for names in page.all("label") if "for" in names}
    assert {names["id"] for names in page.all("input")} == labels
    assert all(names["type"] == "button" for names in page.all("button"))
    assert {"polite"} == {names["aria-live"] for _, names in page.tags if "aria-live" in names}
    assert all("alt" in names for names in page.all("img"))
    ids = [names["id"] for _, names in page.tags if "id" in names]
    assert len(ids) == len(set(ids))
    program = page.scripts[2]
    assert set(re.findall(r'byId\("([\w-]+)"\)', program)) <= set(ids)


def test_the_same_input_gives_the_same_page():
    assert page_of("a.jpg", "b.jpg") == page_of("a.jpg", "b.jpg")


def test_a_request_knows_itself():
    request = lambda *files, number=3: json.loads(Page(page_of(*files, number=number)).scripts[0])
    first, other = request("a.jpg"), request("a.jpg", "b.jpg")
    assert first["name"] == other["name"] == "cycle_003"
    assert first["digest"] != other["digest"]
    assert request("a.jpg", number=12)["name"] == "cycle_012"
    assert first["unsure"] == {"shown": "unsure", "also": ["unsure", "skip", "?"]}
    assert first["bad"] == {"shown": "bad image", "also": ["bad", "bad image"]}


def test_words_and_sizes():
    assert static.shown_word(()) == ""
    assert [static.thumbnail_pixels(count) for count in (1, 300, 301, 1500, 1501)] == [
        512,
        512,
        256,
        256,
        128,
    ]
    assert [static.image_count(count) for count in (1, 2, 1200)] == [
        "1 image",
        "2 images",
        "1,200 images",
    ]
    assert "<h1>Cycle 3: 1 image to label</h1>" in page_of("a.jpg")


# In a browser

BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))


@pytest.fixture(scope="module")
def selenium():
    if BROWSER is None or DRIVER is None:
        pytest.skip("chromium or chromedriver is not on PATH")
    return pytest.importorskip("selenium.webdriver", reason="selenium is not installed")


@pytest.fixture
def start(selenium, tmp_path):
    """`(page, ...) -> Browser` that shows it."""
    open_ones = []

    def begin(text, name="index.html", **settings):
        if not open_ones:
            open_ones.append(Browser(selenium, tmp_path, **settings))
        path = tmp_path / name
        path.write_text(text, "utf-8")
        open_ones[0].driver.get(path.as_uri())
        return open_ones[0]

    yield begin
    for browser in open_ones:
        faults = browser.driver.get_log("browser")
        browser.driver.quit()
        assert faults == []


class Browser:
    """Headless Chromium, and what a person does with it."""

    def __init__(self, selenium, folder, size=(1200, 800), dark=False, first=""):
        from selenium.webdriver.common.by import By
        from selenium.webdriver.common.keys import Keys

        self.keys, self._by, self.downloads = Keys, By, folder / "downloads"
        options = selenium.ChromeOptions()
        options.binary_location = BROWSER
        for flag in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={folder / 'profile'}",
        ):  # fmt: skip
            options.add_argument(flag)
        options.add_experimental_option(
            "prefs", {"download.default_directory": str(self.downloads)}
        )
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = selenium.Chrome(options, selenium.ChromeService(DRIVER))
        self._tell(
            "Emulation.setDeviceMetricsOverride",
            width=size[0], height=size[1], deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._tell("Emulation.setEmulatedMedia", features=[scheme])
        if first:
            self._tell("Page.addScriptToEvaluateOnNewDocument", source=first)

    def _tell(self, command, **arguments):
        return self.driver.execute_cdp_cmd(command, arguments)

    def find(self, name):
        return self.driver.find_element(self._by.ID, name)

    def text(self, name):
        return self.find(name).text

    def ask(self, script):
        return self.driver.execute_script(f"return {script}")

    def press(self, *keys):
        """Keys for the page itself, or for the field that has the focus."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def type_class(self, name):
        self.press("n", name, self.keys.ENTER)

    def called(self, name):
        self.find("name").send_keys(name, self.keys.ENTER)

    def given(self):
        """The answer to each image, in the order of the request."""
        return self.ask("request.images.map(answerTo)")

    def tiles(self):
        """Number and answer of each tile that is in the document, in the order of display."""
        tiles = self.driver.find_elements("css selector", "#tiles .tile")
        tiles.sort(key=lambda tile: int(tile.get_attribute("aria-posinset")))
        return [tuple(tile.text.split("\n")) for tile in tiles]

    def selected(self):
        """Numbers of the selected images."""
        return self.ask("grid.chosen.map(image => image.number)")

    def tile(self, number):
        """The tile of an image by its number, which is seen."""
        return self.find(f"tiles{number - 1}")

    def buttons(self):
        """Key and name of each class."""
        return self.ask(
            "[...document.querySelectorAll('#pad button')].filter(b => !b.hidden)"
            ".map(b => [b.children[0].textContent, b.children[1].textContent])"
        )

    def save(self):
        """Presses "Save" and returns the file's name and rows."""
        before = set(self.downloads.glob("*.csv"))
        self.find("save").click()
        for _ in range(200):
            found = set(self.downloads.glob("*.csv")) - before
            if found:
                break
            time.sleep(0.05)
        (path,) = found
        text = path.read_bytes().decode("utf-8-sig")
        return path.name, list(csv.reader(io.StringIO(text, newline="")))

    def warns(self):
        """Whether the page would ask before it is left."""
        return not self.ask("dispatchEvent(new Event('beforeunload', {cancelable: true}))")


NAMES = [f"garden/{k}.jpg" for k in range(40)]


@pytest.mark.slow
def test_forty_images_by_keys(start):
    browser = start(page_of(*NAMES, classes=("cat", "dog", "owl")))
    assert browser.text("count") == "0 of 40"
    assert not browser.warns()
    expected = {}
    for place in range(12):
        expected[place] = ("cat", "dog", "owl")[place % 3]
        browser.press(str(place % 3 + 1))
    assert browser.text("count") == "12 of 40"
    assert browser.warns()
    browser.called("Ann Lee")

    browser.driver.refresh()  # Loses nothing, and goes on where one was.
    assert browser.text("count") == "12 of 40"
    assert browser.text("place") == "13 of 40"
    assert browser.find("name").get_attribute("value") == "Ann Lee"
    assert browser.given()[:12] == list(expected.values())

    browser.press("u", "b")
    expected |= {12: "unsure", 13: "bad image"}
    browser.press("1", "z", "2")  # Undone, and answered otherwise.
    expected[14] = "dog"
    browser.press(browser.keys.ARROW_LEFT, browser.keys.ARROW_LEFT, "3")  # Image 14 again.
    expected[13] = "owl"
    assert browser.text("place") == "16 of 40"
    browser.type_class("hedgehog")
    expected[15] = "hedgehog"
    assert browser.buttons()[3] == ["4", "hedgehog"]
    for place in range(16, 40):
        expected[place] = "hedgehog"
        browser.press("4")
    assert browser.text("count") == "40 of 40"
    assert browser.text("said").startswith("All 40 answered.")
    assert browser.given() == [expected[place] for place in range(40)]

    name, (head, *rows) = browser.save()
    assert name == "labels_cycle_003_Ann_Lee.csv"
    assert head == ["id", "file", "label", "annotator", "note", "updated"]
    assert [row[:-1] for row in rows] == [
        [f"i{place:016x}", NAMES[place], expected[place], "Ann Lee", ""] for place in range(40)
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row[-1]) for row in rows)
    assert not browser.warns()
    said = answers.read(browser.downloads).answers
    assert {a.id: a.label for a in said} == {f"i{k:016x}": expected[k] for k in range(40)}


@pytest.mark.slow
def test_names_stay_text_in_a_browser(start):
    files = [EVIL, "=cmd|' /C calc'!A0.png", 'b",\n.jpg', "ü.jpg"]
    browser = start(page_of(*files, classes=ODD))
    browser.called("=Ann")
    browser.press("1", "2", "3")
    browser.find("note").send_keys('@note, "quoted"', browser.keys.ENTER)
    browser.press("4")
    assert browser.ask("document.querySelectorAll('img').length") == 1 + len(files)
    assert browser.ask("document.querySelectorAll('script').length") == 3
    tiles = browser.driver.find_elements("css selector", ".tile")
    assert [tile.get_attribute("title") for tile in tiles] == files
    browser.press(browser.keys.HOME)
    assert browser.text("file") == EVIL
    assert [name for _, name in browser.buttons()] == ODD
    assert browser.given() == ODD
    name, rows = browser.save()
    assert name == "labels_cycle_003__Ann.csv"
    assert [row[:-1] for row in rows[1:]] == [
        ["i0000000000000000", EVIL, ODD[0], "'=Ann", ""],
        ["i0000000000000001", f"'{files[1]}", ODD[1], "'=Ann", ""],
        ["i0000000000000002", files[2], ODD[2], "'=Ann", ""],
        ["i0000000000000003", files[3], ODD[3], "'=Ann", '\'@note, "quoted"'],
    ]
    said = answers.read(browser.downloads).answers
    assert [(a.name, a.label, a.annotator) for a in said] == [
        (file.strip(), label, "=Ann") for file, label in zip(files, ODD, strict=True)
    ]


@pytest.mark.slow
def test_a_browser_that_keeps_nothing_says_so_and_works(start):
    refused = (
        "Object.defineProperty(window, 'localStorage',"
        " {get() { throw new DOMException('no', 'SecurityError') }})"
    )
    browser = start(page_of("a.jpg", "b.jpg"), first=refused)
    assert "keeps nothing" in browser.text("refused")
    browser.press("2", "1")
    browser.called("Bo")
    assert [row[2] for row in browser.save()[1][1:]] == ["dog", "cat"]


@pytest.mark.slow
def test_requests_do_not_mix(start):
    browser = start(page_of("a.jpg", "b.jpg"))
    assert not browser.find("refused").is_displayed()
    browser.press("2")
    browser.called("Bo")
    start(page_of("a.jpg", "b.jpg", "c.jpg"), "more.html")
    assert browser.given() == ["", "", ""]
    assert browser.find("name").get_attribute("value") == "Bo"
    start(page_of("a.jpg", "b.jpg", number=4), "next.html")
    assert browser.given() == ["", ""]
    start(page_of("a.jpg", "b.jpg"), "moved.html")
    assert browser.given() == ["dog", ""]


@pytest.mark.slow
def test_classes_by_name(start):
    browser = start(page_of(*NAMES[:9], classes=("cat", "dog")))
    browser.type_class("CAT")
    browser.type_class("skip")
    browser.press("n", "cats", browser.keys.ENTER)
    assert "almost “cat”" in browser.text("hint")
    assert browser.text("count") == "2 of 9"
    browser.press(browser.keys.ENTER)
    browser.press("n", "a/b", browser.keys.ENTER)
    assert "none of" in browser.text("hint")
    browser.press(browser.keys.ESCAPE, "n", "og", browser.keys.ARROW_DOWN, browser.keys.ENTER)
    assert browser.given()[:5] == ["cat", "unsure", "cats", "dog", ""]
    assert browser.buttons() == [["1", "cat"], ["2", "dog"], ["3", "cats"]]
    browser.type_class("owl")
    browser.driver.refresh()
    assert browser.buttons() == [["1", "cat"], ["2", "dog"], ["3", "cats"], ["4", "owl"]]
    browser.press("4")
    assert browser.given()[4:6] == ["owl", "owl"]


@pytest.mark.slow
def test_classes_that_are_fixed_stay(start):
    many = [f"kind {k}" for k in range(40)]
    browser = start(page_of(*NAMES[:5], classes=many, fixed=True))
    browser.press("9", "q", "m")
    browser.type_class("kind 39")
    browser.press("n", "hedgehog", browser.keys.ENTER)
    assert browser.text("hint") == "No class has that name."
    assert browser.given() == ["kind 8", "kind 9", "kind 30", "kind 39", ""]
    assert len(browser.ask("[...document.querySelectorAll('#pad button')].map(b => b.id)")) == 40


@pytest.mark.slow
def test_digits_are_their_own_keys(start):
    browser = start(page_of(*NAMES[:10], classes=[*"0123456789"], fixed=True))
    browser.press(*"1234567890")
    assert browser.given() == [*"1234567890"]


@pytest.mark.slow
def test_a_guess_is_agreed_to_by_enter(start):
    browser = start(page_of("a.jpg", "b.jpg", "c.jpg", guess="dog"))
    assert browser.text("hint") == "The model guesses “dog”: Enter agrees."
    browser.press(browser.keys.ENTER, "1")
    assert browser.given() == ["dog", "cat", ""]


@pytest.mark.slow
def test_parts_undo_start_over_and_a_second_file(start):
    browser = start(page_of(*NAMES[:6], part_count=3))
    browser.find("part").send_keys("2 of 3")
    assert browser.text("count") == "0 of 2"
    assert browser.text("place") == "2 of 6"
    browser.press("1", "1")
    assert browser.given() == ["", "cat", "", "", "cat", ""]
    browser.find("save").click()
    assert "Your name, please" in browser.text("said")
    browser.press("Bo", browser.keys.ENTER)
    assert browser.save()[0] == "labels_cycle_003_Bo.csv"
    browser.press(browser.keys.HOME, browser.keys.DELETE)
    assert browser.given() == ["", "", "", "", "cat", ""]
    assert browser.warns()
    browser.press("z", "2")
    # A browser would call it "... (1)", which sorts before the first file.
    name, rows = browser.save()
    assert name == "labels_cycle_003_Bo_002.csv"
    assert [row[2] for row in rows[1:]] == ["dog", "cat"]
    browser.find("restart").click()
    browser.driver.switch_to.alert.accept()
    assert browser.given() == [""] * 6
    browser.find("undo").click()
    assert browser.given() == ["", "dog", "", "", "cat", ""]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "dark", "paper"),
    [((1200, 800), False, "rgb(255, 255, 255)"), ((420, 860), True, "rgb(20, 23, 27)")],
)
def test_wide_and_narrow_light_and_dark(start, size, dark, paper):
    browser = start(
        page_of(*NAMES, classes=("cat", "a class with a long name")), size=size, dark=dark
    )
    assert browser.ask("innerWidth") == size[0]
    root = "document.documentElement"
    assert browser.ask(f"{root}.scrollWidth - {root}.clientWidth") == 0
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == paper
    browser.find("one").click()
    # The picture and what can be said of it are seen at once, then many and the same.
    for name in ("large", "pad", "typed", "unsure"):
        box = browser.find(name).rect
        assert box["height"] > 0
        assert box["y"] + box["height"] <= size[1], name
    browser.find("grid").click()
    for name in ("box", "pad", "typed", "unsure"):
        box = browser.find(name).rect
        assert box["height"] > 0
        assert box["y"] + box["height"] <= size[1], name
    assert browser.tiles()[:2] == [("1",), ("2",)]
    browser.tile(5).click()
    assert browser.selected() == [5]


def mouse(browser):
    from selenium.webdriver import ActionChains

    return ActionChains(browser.driver, duration=20)


@pytest.mark.slow
def test_many_are_selected_by_mouse_and_answered_by_one_key(start):
    browser = start(page_of(*NAMES, classes=("cat", "dog", "owl")))
    keys = browser.keys
    browser.tile(3).click()
    mouse(browser).key_down(keys.SHIFT).click(browser.tile(6)).key_up(keys.SHIFT).perform()
    assert browser.selected() == [3, 4, 5, 6]
    mouse(browser).key_down(keys.CONTROL).click(browser.tile(4)).click(browser.tile(9)).key_up(
        keys.CONTROL
    ).perform()
    assert browser.selected() == [3, 5, 6, 9]
    assert browser.text("chosen") == "4 selected"
    browser.press("2")
    assert [k for k, label in enumerate(browser.given(), 1) if label] == [3, 5, 6, 9]
    assert browser.selected() == [10]  # The next open one, as after a single answer.
    # A frame from the middle of one tile to that of another takes what lies between them.
    columns = browser.ask("grid.columns")
    across = mouse(browser).click_and_hold(browser.tile(2)).move_to_element(browser.tile(3))
    across.move_to_element(browser.tile(columns + 3)).perform()
    assert browser.driver.find_elements("css selector", ".frame")
    mouse(browser).release().perform()
    assert not browser.driver.find_elements("css selector", ".frame")
    assert browser.selected() == [2, 3, columns + 2, columns + 3]
    browser.press("1")
    assert browser.given()[1:3] == ["cat", "cat"]
    assert browser.text("count") == f"{len(list(filter(None, browser.given())))} of 40"
    mouse(browser).double_click(browser.tile(2)).perform()
    assert browser.find("one").get_attribute("aria-pressed") == "true"
    assert browser.text("place") == "2 of 40"


@pytest.mark.slow
def test_the_grid_by_keys_alone_undo_and_redo_over_reload(start):
    browser = start(page_of(*NAMES, classes=("cat", "dog", "owl"), order=[*range(39, -1, -1)]))
    keys, columns = browser.keys, browser.ask("grid.columns")
    browser.press(keys.SHIFT + keys.ARROW_RIGHT + keys.ARROW_DOWN + keys.NULL)
    assert browser.selected() == [*range(1, columns + 3)]
    browser.press(keys.ESCAPE)
    assert browser.selected() == []
    browser.press("1")
    assert browser.text("hint") == "Nothing is selected."
    browser.press(keys.HOME, keys.CONTROL + keys.ARROW_RIGHT + keys.ARROW_RIGHT + keys.NULL, " ")
    assert browser.selected() == [1, 3]
    browser.press("1")  # Shown in another order than they were asked in.
    assert browser.given()[36:] == ["", "cat", "", "cat"]
    browser.press(keys.CONTROL + "a" + keys.NULL, "2")
    assert browser.given() == ["dog"] * 40
    browser.press("z")
    assert browser.given()[36:] == ["", "cat", "", "cat"]
    assert len(browser.selected()) == 40
    browser.driver.refresh()
    browser.press("z")
    assert browser.given() == [""] * 40
    assert browser.selected() == [1, 3]
    browser.driver.refresh()
    assert browser.find("undo").get_attribute("disabled")
    browser.press(keys.SHIFT + "z" + keys.NULL)
    assert browser.given()[36:] == ["", "cat", "", "cat"]
    browser.press(keys.CONTROL + "y" + keys.NULL)
    assert browser.given() == ["dog"] * 40
    assert browser.find("redo").get_attribute("disabled")
    browser.press("z", "3")  # A new answer ends what could be given again.
    assert browser.given() == ["owl"] * 40
    assert browser.find("redo").get_attribute("disabled")
    browser.called("Ann")
    assert [row[1] for row in browser.save()[1][1:]] == NAMES
    browser.find("order").send_keys("as asked")
    assert browser.tile(1).get_attribute("title") == NAMES[0]


@pytest.mark.slow
def test_ten_thousand_thumbnails_scroll_without_a_hitch(start):
    files = [f"{k}.jpg" for k in range(10_000)]
    pictures = [jpeg(k) for k in range(256)]
    text = static.page_html(
        3, asked_of(*files), [pictures[k % 256] for k in range(10_000)], ("cat",), **WORDS
    )
    browser = start(text)
    count = "document.querySelectorAll('*').length"
    assert browser.ask(count) < 600
    browser.driver.set_script_timeout(60)
    waits, draws = browser.driver.execute_async_script(
        "const done = arguments[0], box = document.getElementById('box'), waits = [], draws = [];"
        "const draw = grid.draw.bind(grid);"
        "grid.draw = () => { const start = performance.now(); draw();"
        " draws.push(performance.now() - start); };"
        "let last = performance.now();"
        "const step = now => { waits.push(now - last); last = now; box.scrollTop += 400;"
        " waits.length < 100 ? requestAnimationFrame(step) : done([waits, draws]); };"
        "requestAnimationFrame(step)"
    )
    # Two and a half rows a frame. The lower quartile, as other programs may have the cores.
    assert len(draws) > 50
    assert statistics.quantiles(draws, n=4)[0] < 8
    assert statistics.quantiles(waits, n=4)[0] < 50
    assert browser.ask(count) < 600
    browser.press(browser.keys.END)
    assert browser.ask("grid.tiles.has(9999)")
    browser.press(browser.keys.CONTROL + "a" + browser.keys.NULL, "1")
    assert browser.text("count") == "10000 of 10000"
    browser.driver.refresh()
    assert browser.text("count") == "10000 of 10000"
    browser.press("z")
    assert browser.text("count") == "0 of 10000"


@pytest.mark.slow
def test_assistive_technology_sees_a_list_of_which_many_can_be_selected(start):
    browser = start(page_of(*NAMES, classes=("cat", "dog")))
    browser.tile(1).click()
    browser.press("1", browser.keys.SHIFT + browser.keys.ARROW_RIGHT + browser.keys.NULL)
    nodes = browser._tell("Accessibility.getFullAXTree")["nodes"]
    told = [
        (
            node["role"]["value"],
            node.get("name", {}).get("value"),
            {p["name"]: p["value"].get("value") for p in node.get("properties", [])},
        )
        for node in nodes
        if not node["ignored"]
    ]
    (box,) = [properties for role, name, properties in told if role == "listbox"]
    assert box["multiselectable"]
    assert box["focused"]
    options = [(name, p["selected"]) for role, name, p in told if role == "option" and name]
    options = [(name, chosen) for name, chosen in options if name.startswith("Image ")]
    assert ("Image 1 of 40: garden/0.jpg, cat", False) in options
    assert [name.split(":")[0] for name, chosen in options if chosen] == [
        "Image 2 of 40",
        "Image 3 of 40",
    ]
    active = browser.find("tiles").get_attribute("aria-activedescendant")
    assert browser.find(active).get_attribute("aria-posinset") == "3"
    nameless = [role for role, name, _ in told if role in {"button", "textbox"} and not name]
    assert nameless == []
