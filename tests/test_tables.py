"""Tables of the READMEs are what the committed results say, and a changed figure is found."""

import re
import sys

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import tables

QUICK = ("README.md", "benchmarks/README.md", "benchmarks/studies/head/README.md",
         "benchmarks/studies/scenes/README.md", "benchmarks/studies/speed/README.md")  # fmt: skip


def check(monkeypatch, *paths):
    monkeypatch.setattr(sys, "argv", ["tables.py", "--check", *map(str, paths)])
    return tables.main()


def test_the_first_tables_are_what_the_files_say(monkeypatch, capsys):
    assert check(monkeypatch, *(ROOT / name for name in QUICK)) == 0
    assert not capsys.readouterr().out


@pytest.mark.slow
def test_all_tables_are_what_the_files_say(monkeypatch, capsys):
    assert check(monkeypatch) == 0, capsys.readouterr().out


def test_a_changed_figure_is_named_and_written_anew(monkeypatch, capsys, tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    copy = tmp_path / "README.md"
    copy.write_text(text.replace("| 1.54 |", "| 1.64 |"), encoding="utf-8")
    assert check(monkeypatch, copy) == 1
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert f'{copy}, table "speedup"' in told
    assert '"1.64", by the files "1.54"' in told
    monkeypatch.setattr(sys, "argv", ["tables.py", str(copy)])
    assert tables.main() == 0
    assert copy.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("text", "told"),
    [("<!-- table: nope -->\n<!-- end -->\n", "no table is called nope: give one of csv,"),
     ("<!-- table: speedup -->\n", "a table has no end: close each by <!-- end -->")],
)  # fmt: skip
def test_a_block_that_cannot_be_rendered_is_named(text, told, monkeypatch, tmp_path):
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        check(monkeypatch, tmp_path / "README.md")
    assert told in str(caught.value)


def test_no_figures_of_results_stand_in_a_table_that_nothing_holds():
    for path in (p for p in tables.texts() if "configs" not in p.parts and p.name == "README.md"):
        if path.parent.name == "tavaal_jax":
            continue
        rest = tables._BLOCK.sub("", path.read_text(encoding="utf-8"))
        found = re.findall(r"^\|.*\b\d\.\d\d\b.*$", rest, re.MULTILINE)
        assert not found, f"{path}: {found[0]}"
