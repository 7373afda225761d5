"""Command line of the live labelling page: python -m tavaal_jax.label FOLDER."""

import json
import os
import pathlib
import signal
import sys
import threading
import webbrowser
from typing import TYPE_CHECKING, NamedTuple

from tavaal_jax import command_line, main
from tavaal_jax.command_line import CommandLine
from tavaal_jax.engine import allocator, supervisor
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError

if TYPE_CHECKING:
    from tavaal_jax.labelling.page.answer_files import AnswerFiles
    from tavaal_jax.labelling.page.board import Exchange

USAGE = """python -m tavaal_jax.label FOLDER [--workdir=FOLDER] [--config=NAME] [--config.KEY=VALUE]
                             [--port=8400] [--host=127.0.0.1] [--nobrowser]

Opens a page in the browser, on which people label the images in FOLDER and below while a model
learns beside them. Without --config it is folder, without --workdir runs/<name of FOLDER>. Only
this computer can open the page, unless --host names another address of it. It is stopped by ctrl-C;
everything is saved, and the same command continues, or without the page python -m tavaal_jax.main
--config=folder --config.folder.images=FOLDER --workdir=FOLDER."""


class LabelCommand(NamedTuple):
    """What the command asks for."""

    study: CommandLine
    host: str
    port: int | None
    """None: the usual one, or else a free one."""
    opens_browser: bool


def parse(argv: list[str]) -> LabelCommand:
    """Reads the command's arguments; `argv[0]` is the program. UserError for the first fault."""
    folders, rest = [], []
    values = {"host": "127.0.0.1", "port": "", "config": "folder", "workdir": ""}
    opens_browser, following = True, iter(argv[1:])
    for argument in following:
        name, equals, value = argument.partition("=")
        key = name.lstrip("-")
        if not argument.startswith("-"):
            folders.append(argument)
        elif key in values:
            values[key] = value if equals else next(following, "")
        elif argument in ("--nobrowser", "--browser"):
            opens_browser = argument == "--browser"
        else:
            rest.append(argument)
    if len(folders) != 1:
        what = f"there are {len(folders)}: {', '.join(folders)}" if folders else "there is none"
        raise UserError(f"give one folder of images, {what}; --help tells more")
    if values["port"] and not (values["port"].isdecimal() and int(values["port"]) < 2**16):
        raise UserError(f"--port is {values['port']!r}: give a number from 0 to 65535")
    images = user_path(folders[0], "FOLDER")
    workdir = values["workdir"] or os.path.join("runs", images.absolute().name or "images")
    if not values["workdir"]:
        _check_belongs(pathlib.Path(workdir), images)
    flags = [f"--config={values['config']}", f"--workdir={workdir}"]
    study = command_line.parse([argv[0], *flags, f"--config.folder.images={images}", *rest])
    if study.distributed:
        raise UserError("people's images need --distributed=False: one process asks them")
    port = int(values["port"]) if values["port"] else None
    return LabelCommand(study, values["host"], port, opens_browser)


def _check_belongs(workdir: pathlib.Path, images: pathlib.Path) -> None:
    """Raises UserError where a workdir that nobody named is that of another folder of images."""
    try:
        record = json.loads((workdir / "config.json").read_text("utf-8"))
        before = user_path(record["config"]["folder"]["images"], "folder.images")
        is_another = before.is_dir() and images.is_dir() and not before.samefile(images)
    except (OSError, ValueError, KeyError, TypeError):
        return  # None was begun there, or the loop tells what is wrong with it.
    if is_another:
        raise UserError(
            f"{workdir} has the labels of {before}, not of {images}: give another --workdir"
        )


def _run(command: LabelCommand) -> None:
    """Serves the page, and runs the loop beside it until it is stopped."""
    try:
        from tavaal_jax.labelling.page import server
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tavaal_jax"):
            raise
        raise UserError(
            f"the page needs the package {error.name}: pip install 'tavaal_jax[photos]'"
        ) from error
    from tavaal_jax.labelling.page.answer_files import AnswerFiles
    from tavaal_jax.labelling.page.board import Exchange

    workdir = command.study.workdir
    exchange, answers = Exchange(), AnswerFiles(workdir / "labels")
    site = server.Site(exchange, answers, workdir)
    serving = server.start(site, exchange, command.host, command.port)
    try:
        print(f"label at {serving.url}", flush=True)
        if command.host not in ("127.0.0.1", "localhost", "::1"):
            print(
                f"whoever can reach {command.host} port {serving.port} and has this address sees"
                " the images and can answer; nothing is encrypted",
                flush=True,
            )
        if command.opens_browser:
            _open(serving.url)
        _label(command, exchange, answers)
    finally:
        serving.stop()


def _open(url: str) -> None:
    """Opens the page where there is a display; a browser in this terminal would be in the way."""
    has_display = sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if has_display:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _label(command: LabelCommand, exchange: "Exchange", answers: "AnswerFiles") -> None:
    """The loop, in this thread, as it receives the signals to end."""
    from tavaal_jax import jax_settings
    from tavaal_jax.engine import compilation
    from tavaal_jax.labelling import loop
    from tavaal_jax.labelling.live import LivePage
    from tavaal_jax.report import progress
    from tavaal_jax.run import is_labelled_by_people

    config, workdir = command.study.config, command.study.workdir
    if not is_labelled_by_people(config):
        raise UserError(f"dataset is {config.dataset!r}: give a config for people's images")
    jax_settings.check()
    note = compilation.keep_in_cache()
    if note is not None:
        main.say(f"note: {note}")
    page = LivePage(exchange, workdir, answers.lock, answers.load)
    console = progress.Terminal()
    with main.Signals() as signals, progress.Display(console) as display:

        def callback(event: progress.Event) -> None:
            display(event)
            if event.done is not None:
                exchange.progress(event.done)

        stop = lambda: signal.SIGPIPE if console.is_closed else signals.received
        loop.run(config, workdir, callback, stop, page)


def run_command(argv: list[str]) -> int:
    """Runs the command that `argv` describes; returns the exit code, as `main.main` does."""
    if command_line.wants_help(argv):
        print(USAGE)
        return 0

    def work() -> None:
        command = parse(argv)
        for note in command.study.notes:
            main.say(f"note: {note}")
        _run(command)

    return main.exit_code(work)


if __name__ == "__main__":
    allocator.restart_with_huge_pages()
    supervisor.end(run_command(sys.argv))
