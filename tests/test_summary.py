"""summary.csv, summary.md and the table on the terminal, from hand-made results."""

import io

from conftest import read_csv, results
from rich.console import Console

from tavaal_jax.report import files, statistics, summary

VALUES = {"random": [[0.5, 0.7], [0.6, 0.9]], "tavaal": [[0.4, 0.9], [0.8, 0.9]]}


def shown(found):
    """What the terminal shows of a table."""
    out = io.StringIO()
    Console(file=out, width=100).print(summary.table(found))
    return out.getvalue()


def cells(found):
    return [[c.strip() for c in line.split("│")[1:-1]] for line in shown(found).splitlines()]


def test_final_table_has_mean_and_deviation_over_trials():
    found = cells(results(**VALUES))
    assert ["random", "2", "0.550", "0.800"] in found
    assert ["", "", "± 0.071", "± 0.141"] in found
    assert ["tavaal", "2", "0.600", "0.900"] in found
    assert ["", "", "± 0.283", "± 0.000"] in found
    one = shown(results(**VALUES)[:1])
    assert "0.500" in one
    assert "±" not in one.split("\n", 1)[1]


def test_a_table_shows_what_is_missing_and_every_metric():
    table = results(random=[[0.5, 0.7]], tavaal=[[0.4]])
    assert ["tavaal", "1", "0.400", "-"] in cells(table)
    both = table + [{**row, "metric": "loss", "value": 2.0} for row in table]
    assert ["random, loss", "1", "2.000", "2.000"] in cells(both)
    assert ["random, accuracy", "1", "0.500", "0.700"] in cells(both)


def test_both_files_are_written_from_the_rows_and_the_trials_diagnostics(tmp_path):
    trial = files.trial_folder(tmp_path, "tavaal", 0)
    trial.mkdir(parents=True)
    (trial / "diagnostics.csv").write_text(
        "cycle,labelled,picks_class_entropy,picks_loss\n0,10,1.5,1.25\n"
    )
    table = results(**VALUES)
    summary.write(tmp_path, table, "moons")
    assert list(read_csv(tmp_path / "summary.csv")[0]) == list(statistics.FIELDS)
    assert len(read_csv(tmp_path / "summary.csv")) == len(statistics.summary(table))
    text = (tmp_path / "summary.md").read_text()
    assert text.startswith("# moons\n\nTrials: random 2, tavaal 2.")
    assert "| `tavaal` | 1.250 |" in text


def test_labels_that_are_never_saved_are_said_so():
    table = results(random=[[0.5, 0.9]], tavaal=[[0.4, 0.8]], vaal=[[0.6, 0.95]])
    text = summary.markdown(table, [], "t")
    assert "| `tavaal` | 0.600 | -0.100 | not reached |" in text
    assert "| `vaal` | 0.775 | +0.075 | 1 |" in text


def test_the_boundary_is_compared_over_cycles_that_both_have():
    values = {"tavaal": {"0": "1.0", "1": ""}, "vaal": {"0": "0.5", "1": "9.0"}}
    diagnosed = [
        {"method": m, "trial": "0", "cycle": c, "picks_boundary_distance": value}
        for m, cycles in values.items() for c, value in cycles.items()
    ]  # fmt: skip
    found = summary._same_cycles(diagnosed, "picks_boundary_distance", "tavaal", "vaal")
    assert found == ({0: 1.0}, {0: 0.5})


def test_the_text_is_honest_about_few_trials():
    one = summary.markdown(results(random=[[0.2, 0.4]], tavaal=[[0.3, 0.5]]), [], "t")
    assert "neither a deviation nor an interval nor a test" in one
    assert "| `tavaal` | +0.100 | +0.100 |" in one
    two = summary.markdown(results(random=[[0.2], [0.3]], vaal=[[0.3], [0.5]]), [], "t")
    assert "below 0.5, so none can be called significant" in two
    many = summary.markdown(results(random=[[0.2]] * 6, vaal=[[0.3]] * 6), [], "t")
    assert "below 0.031." in many
    three = summary.markdown(
        results(**dict.fromkeys(("random", "vaal", "sraal"), [[0.2]] * 6)), [], "t"
    )
    assert "below 0.031, by Holm over 2 methods 0.062, so none can be" in three


def test_the_text_shows_diagnostics_and_the_plane():
    diagnosed = [
        {"method": m, "trial": str(t), "cycle": str(c), "spearman": "", "picks_loss": str(t + c),
         "picks_boundary_distance": str(0.1 * (t + c) * (1 + (m == "vaal"))), "picks_spread": "1.0"}
        for m in ("vaal", "tavaal") for t in range(3) for c in range(2)
    ]  # fmt: skip
    text = summary.markdown(results(vaal=[[0.2]] * 3, tavaal=[[0.3]] * 3), diagnosed, "t")
    assert "| method | true loss of the picks |" in text
    assert "| `tavaal` | 1.500 ± 1.000 |" in text
    assert "| distance to T's boundary: `tavaal` less `vaal` | 3 | -0.150 [" in text


def test_a_method_alone_has_no_differences():
    text = summary.markdown(results(tavaal=[[0.2, 0.3]]), [], "t")
    assert "paired by trial" not in text
    assert "| `tavaal` | 0.250 | - | - |" in text


def test_methods_are_compared_with_each_other():
    curves = {"random": [[0.2, 0.4]] * 3, "vaal": [[0.3, 0.5], [0.3, 0.52], [0.3, 0.5]]}
    alone = summary.markdown(results(**curves), [], "t")
    assert "against each other" not in alone  # The difference to random says it all.
    curves["tavaal"] = [[0.3, 0.48], [0.3, 0.5], [0.3, 0.5]]
    text = summary.markdown(results(**curves), [], "t")
    assert "## Test accuracy: methods against each other" in text
    assert "| less | `random` | `vaal` | `tavaal` |" in text
    # Means under the curves 0.300; 0.400, 0.410, 0.400; 0.390, 0.400, 0.400.
    assert "| `random` | - | -0.103* | -0.097* |" in text
    assert "| `vaal` | +0.103* | - | +0.007 |" in text
    assert "| `tavaal` | +0.097* | -0.007 | - |" in text


def test_without_random_two_are_compared_with_each_other():
    rows = results(vaal=[[0.3, 0.5]], tavaal=[[0.4, 0.5]])
    assert summary.pairwise(rows, "accuracy").body == [
        ["`vaal`", "-", "-0.050"],
        ["`tavaal`", "+0.050", "-"],
    ]
    few = results(vaal=[[0.3]], tavaal=[[0.4]])  # No curve, no mean under it.
    assert summary.pairwise(few, "accuracy").body == []


def test_what_the_next_labels_would_bring_stands_in_it():
    long = summary.markdown(results(random=[[0.5, 0.6, 0.7, 0.74]] * 3), [], "t")
    assert "## What the next labels would bring" in long
    assert "\n* random: " in long
    assert "next labels" not in summary.markdown(results(random=[[0.5, 0.6]] * 3), [], "t")
