"""The loop beside the live page: it waits, tells what is wrong, and goes on by itself."""

import csv
import io
import json
import signal
import threading
import time

import people
import pytest

from tavaal_jax.errors import Interrupted, UserError
from tavaal_jax.labelling import insight, loop
from tavaal_jax.labelling.live import LivePage
from tavaal_jax.labelling.page.answer_files import AnswerFiles, Given
from tavaal_jax.labelling.page.board import Exchange

PATIENCE = 300  # seconds


class Beside:
    """The loop in a thread of its own, with an exchange and no server."""

    def __init__(self, tmp_path, **changes):
        self.truth = people.folder(tmp_path / "photos", 40)
        self.work = tmp_path / "work"
        self.exchange = Exchange()
        self.answers = AnswerFiles(self.work / "labels")
        self.log, self.ended, self.signal = [], [], None
        one = people.config(tmp_path / "photos", tmp_path, **changes)
        page = LivePage(self.exchange, self.work, self.answers.lock, self.answers.load)

        def run():
            try:
                say = lambda event: event.text and self.log.append(event.text)
                loop.run(one, self.work, say, lambda: self.signal, page)
            except BaseException as error:
                self.ended.append(error)

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def until(self, is_so):
        """Waits until something is so of the exchange."""
        end = time.monotonic() + PATIENCE
        while not is_so(self.exchange):
            assert time.monotonic() < end, (self.ended, self.log, self.exchange)
            assert not self.ended, self.ended
            time.sleep(0.02)

    def answer(self, who, images):
        """Answers images truly, as the server does."""
        board = self.exchange.board
        given = [Given(n, board.files[n], self.truth[board.files[n]]) for n in images]
        self.answers.save(who, given)
        return self.exchange.answered({one.id: True for one in given})

    def stop(self):
        """Ends the loop by a signal; what has ended it."""
        self.signal = signal.SIGINT
        self.thread.join(PATIENCE)
        return self.ended[0]

    def status(self):
        """What status.json says."""
        return json.loads((self.work / "status.json").read_text())


@pytest.fixture
def beside(tmp_path):
    one = Beside(tmp_path)
    try:
        one.until(lambda exchange: exchange.board)
        yield one
    finally:
        one.stop()


def test_the_request_is_shown_whole_and_no_role_is_told(beside):
    board = beside.exchange.board
    text = (beside.work / "cycles/cycle_000/asked.csv").read_text("utf-8")
    roles = {row["id"]: row["role"] for row in csv.DictReader(io.StringIO(text))}
    assert set(roles.values()) == {"pick", "test"}
    assert sorted(board.request.ids) == sorted(roles)
    assert board.status["state"] == "WAITING" == beside.status()["state"]
    assert (board.left, len(board.files), board.request.enough) == (40, 40, pytest.approx(16))
    assert not hasattr(board, "reserved")
    assert "role" not in str(board.request)
    assert isinstance(beside.stop(), Interrupted)
    assert beside.status()["state"] == "WAITING"


def test_answers_of_the_page_and_of_files_count_together(beside):
    exchange, names = beside.exchange, beside.exchange.board.request.ids
    assert beside.answer("Anna", names[:3]) == 3
    path = beside.work / "labels" / "mine.csv"
    path.write_text(f"id,label\n{names[3]},cat\n{names[0]},cat\n")
    beside.until(lambda exchange: exchange.count() == 4)
    assert beside.status()["answered"] == 4
    assert exchange.problem is None
    assert exchange.board.classes == tuple(sorted(exchange.board.classes))


def test_a_faulty_file_is_told_and_the_loop_goes_on_when_it_is_mended(beside):
    path = beside.work / "labels" / "mine.csv"
    path.write_text("nonsense")
    beside.until(lambda exchange: exchange.problem)
    assert "labels/mine.csv" in beside.exchange.problem
    assert beside.status()["problem"] == beside.exchange.problem
    assert beside.status()["state"] == "WAITING"
    assert beside.thread.is_alive()
    path.unlink()
    beside.until(lambda exchange: not exchange.problem)
    assert "problem" not in beside.status()


def test_training_without_enough_labels_is_told(beside):
    beside.answer("Anna", beside.exchange.board.request.ids[:2])
    beside.exchange.want_training()
    beside.until(lambda exchange: exchange.problem)
    assert "a model needs 8 labels" in beside.exchange.problem
    assert not (beside.work / "cycles/cycle_000/config.json").exists()


def test_what_only_a_flag_can_mend_ends_the_command(tmp_path):
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    people.folder(tmp_path / "photos" / "sub", 2)
    one = Beside(tmp_path)
    one.thread.join(PATIENCE)
    assert isinstance(one.ended[0], UserError)
    assert "class_folders" in str(one.ended[0])


def test_agreement_is_that_of_images_with_several_answers(beside):
    names = beside.exchange.board.request.ids
    assert beside.exchange.board.agreement is None
    beside.answer("Anna", names[:8])
    beside.answer("Bob", names[:8])
    beside.until(lambda exchange: exchange.board.agreement)
    assert beside.exchange.board.agreement == {"alpha": 1.0, "n": 8}


def test_predictions_that_people_have_changed_are_none(tmp_path):
    from tavaal_jax.labelling.workdir import LabellingWorkdir

    workdir = LabellingWorkdir(tmp_path)
    assert insight.Predictions.read(workdir).ids == ()
    text = "id,file,predicted,confidence,p_cat,p_dog\ni1,a.png,cat,0.9,0.9,0.1\n"
    (tmp_path / "predictions.csv").write_text(text)
    found = insight.Predictions.read(workdir)
    assert (found.ids, found.classes, found.best) == (("i1",), ("cat", "dog"), {"i1": "cat"})
    assert found.probabilities.tolist() == [[pytest.approx(0.9), pytest.approx(0.1)]]
    (tmp_path / "predictions.csv").write_text(text.replace("0.1", "x"))
    assert insight.Predictions.read(workdir).ids == ()
