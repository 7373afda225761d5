"""What is passed over, in lines and in status.json."""

from tavaal_jax.labelling import passed_over
from tavaal_jax.labelling.passed_over import PassedOver


def test_kinds_are_sorted_and_name_three():
    pairs = [("files that are hidden", f".{name}") for name in "dbca"] + [("backups", "x" * 200)]
    backups, hidden = passed_over.collected(pairs + pairs)
    assert hidden == PassedOver("files that are hidden", (".a", ".b", ".c", ".d"))
    assert hidden._replace(what="copies that differ", names=("a",)).line == "1 copy that differ: a"
    assert hidden.line == "4 files that are hidden: .a, .b, .c, ..."
    assert backups.line == f"1 backup: {'x' * 80}..."
    assert passed_over.summary(["a\n"], "images gone", "image gone") == "1 image gone: a\\n"


def test_only_what_has_changed_is_told_again():
    pairs = [("backups", "a~"), ("backups", "b~"), ("files that are hidden", ".a")]
    kinds = passed_over.collected(pairs)
    records = passed_over.records(kinds)
    assert records[0] == {"what": "backups", "count": 2, "first": ["a~", "b~"]}
    assert list(passed_over.changed(kinds, records)) == []
    assert list(passed_over.changed(kinds, records[:1])) == [kinds[1]]
    more = passed_over.collected([("backups", "a~"), ("files that are hidden", ".a")])
    assert [kind.line for kind in passed_over.changed(more, records)] == ["1 backup: a~"]
    for damaged in (None, "x", [None, 3, {}], {"a": 1}):
        assert list(passed_over.changed(kinds, damaged)) == list(kinds)
