"""Claim: labelling photos on the live page is what README's film shows, which this makes.

Starts the command of the live page on copies of photos called `class__anything.jpg`, without the
class, and answers by keys in a headless Chromium: a request in the grid, suggestions of the model,
the map. The pictures of the page become a GIF.

    pip install -e '.[photos,test]', and Chromium with its driver
    python benchmarks/label_film.py --images=FOLDER [--count=400] [--out=configs/labelling.gif]
"""

import argparse
import io
import pathlib
import random
import shutil
import sys
import tempfile
import time

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))
from live_people import Command

SIZE, SHOWN = (1040, 640), (832, 512)
PATIENCE = 300.0  # seconds
COLOURS = 128


class Film:
    """A browser, and pictures of what it shows."""

    def __init__(self, address):
        options = webdriver.ChromeOptions()
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
            options.add_argument(flag)
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options, service)
        width, height = SIZE
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get(address)
        self.frames, self.times = [], []

    def find(self, name):
        """The element with an id."""
        return self.driver.find_element(By.ID, name)

    def wait(self, is_so):
        """Waits until something holds."""
        end = time.monotonic() + PATIENCE
        while not is_so():
            if time.monotonic() > end:
                sys.exit("the page did not show what was waited for")
            time.sleep(0.1)

    def keys(self, *keys, held=None):
        """Presses keys, with another one `held`."""
        actions = ActionChains(self.driver)
        if held:
            actions.key_down(held)
        for key in keys:
            actions.send_keys(key)
        if held:
            actions.key_up(held)
        actions.perform()

    def take(self, seconds):
        """Takes a picture that is shown for some time."""
        time.sleep(0.4)  # Thumbnails appear.
        picture = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        self.frames.append(picture.resize(SHOWN, Image.Resampling.LANCZOS))
        self.times.append(round(1000 * seconds))

    def save(self, path):
        """Writes the GIF; all frames have the colours of the first ones."""
        some = Image.new("RGB", (SHOWN[0], SHOWN[1] * 3))
        for place, number in enumerate((0, len(self.frames) // 2, -1)):
            some.paste(self.frames[number], (0, place * SHOWN[1]))
        palette = some.quantize(COLOURS)
        plain = Image.Dither.NONE  # Dithering cannot be compressed.
        first, *others = [frame.quantize(palette=palette, dither=plain) for frame in self.frames]
        first.save(path, save_all=True, append_images=others, duration=self.times, loop=0)


def copy_photos(images, to, count):
    """Copies random photos called `class__file` as `file`, `-> {file: class}`."""
    to.mkdir(parents=True)
    names, truth = sorted(path.name for path in images.iterdir()), {}
    for name in random.Random(0).sample(names, min(count, len(names))):
        label, _, file = name.partition("__")
        truth[file] = label
        shutil.copy(images / name, to / file)
    return truth


def sign_in(film):
    """Gives a name."""
    film.wait(lambda: film.find("name").is_displayed())
    film.find("name").send_keys("Anna", Keys.ENTER)


def label_all(film, truth, most):
    """Answers a request in the grid: neighbours of one class are selected and answered at once."""
    known, taken = [], 0
    total = int(film.find("count").text.split()[-1])
    while (done := int(film.find("count").text.split()[0])) < total:
        files = film.driver.execute_script("return grid.items.map(image => image.file)")
        at = film.driver.execute_script("return grid.at")
        label, count = truth[files[at]], 1
        while at + count < len(files) and truth[files[at + count]] == label:
            count += 1
        film.keys(*[Keys.ARROW_RIGHT] * (count - 1), held=Keys.SHIFT)
        if taken < most:
            film.take(0.5)
        if label in known[:9]:
            film.keys(str(known.index(label) + 1))
        else:
            film.keys("n", label, Keys.ENTER)
            if "almost" in film.find("hint").text:  # A class that is spelt like another one.
                film.keys(Keys.ENTER)
            known.append(label)
        film.wait(lambda before=done: film.find("count").text.split()[0] != str(before))
        if taken < most:
            film.take(0.5)
        taken += 1


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("configs/labelling.gif"))
    given = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="label_film_"))
    truth = copy_photos(given.images, work / "photos", given.count)
    with Command(work / "photos", work / "work", "folder", "--config.initial=40") as command:
        film = Film(f"http://{command.host}:{command.port}/?token={command.token}")
        try:
            sign_in(film)
            film.wait(lambda: film.find("count").text == "0 of 40")
            film.take(1.5)
            label_all(film, truth, 7)
            film.take(1.5)
            film.wait(lambda: film.find("count").text == "0 of 40" and film.find("title").text)
            film.take(1.5)
            film.find("view-suggestions").click()
            film.wait(lambda: film.find("agree").text.startswith("All"))
            film.take(1.5)
            film.find("agree").click()
            film.take(1.5)
            film.find("view-map").click()
            film.wait(lambda: "computing" not in film.find("map-lead").text.lower())
            time.sleep(2)
            film.take(2.5)
            film.save(given.out)
        finally:
            film.driver.quit()
    print(f"{given.out}: {len(film.frames)} pictures, {given.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
