"""The live page in a browser with its own server and loop: label, and the next request comes."""

import time

import people
import pytest
import test_labelling_page as still
from live_people import PATIENCE, Command, config_file, on_disk
from test_labelling_page import selenium  # noqa: F401

pytestmark = pytest.mark.slow


def until(is_so, what):
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_a_request_is_answered_by_keys_and_the_next_one_comes_by_itself(
    selenium,  # noqa: F811
    tmp_path,
):
    truth = people.folder(tmp_path / "photos", 60)
    work = tmp_path / "work"
    with Command(tmp_path / "photos", work, config_file(tmp_path)) as command:
        command.person().waiting(0)
        browser = still.Browser(selenium, tmp_path)
        try:
            browser.driver.get(f"http://{command.host}:{command.port}/?token={command.token}")
            assert browser.driver.current_url == f"http://{command.host}:{command.port}/"
            until(lambda: browser.find("name").is_displayed(), "the question for a name")
            browser.called("Anna B")
            until(lambda: browser.text("count") == "0 of 16", "the request")
            known = []
            for number in range(16):
                label = truth[browser.text("file")]
                if label in known:
                    browser.press(str(known.index(label) + 1))
                else:
                    browser.type_class(label)
                    known.append(label)
                until(lambda n=number: len(on_disk(work)) == n + 1, f"answer {number}")
            until(lambda: browser.text("count") == "0 of 8", "the next request")
            state = command.person().state()
            rows = {name: label for _, name, label in on_disk(work)}
            files = {row["id"]: row["file"] for row in people.requested(work, 0)}
            assert rows == {name: truth[file] for name, file in files.items()}
            assert {who for who, _, _ in on_disk(work)} == {"Anna B"}
            assert state["curve"][0]["labelled"] == 12
            browser.find("view-map").click()
            chart = browser.find("chart")
            until(chart.is_displayed, "the map")
            command.person().until(
                lambda s: command.person().get("/api/map?kind=pca")["state"] == "ready", "the map"
            )
            # Neither an error nor anything that the policy has refused.
            assert browser.driver.get_log("browser") == []
        finally:
            browser.driver.quit()
        assert command.stop()[0] == 130
