"""The section of carried directions, from the summary alone."""

import numpy as np
import pytest
from test_transfer_matrix import DOMAINS, into

from workbench.behaviour.transfer_entries import transfer_entries
from workbench.interventions.transfer_matrix import transfer_matrix
from workbench.reporting.blocks import Details, Picture, Table, Text
from workbench.reporting.experiment_report import experiment_blocks
from workbench.reporting.summary import read_summary
from workbench.reporting.transfer_panels import TransferPanel, transfer_panels
from workbench.reporting.transfer_section import transfers


@pytest.fixture(scope="module")
def summary():
    """Four domains; letter has no gap; color into sound works, sound into color does not; ridge maps beside."""
    strength = {("color", "sound"): 0.9, ("sound", "color"): 0.1}
    made = []
    for recipient in DOMAINS:
        named = {"own direction": recipient, **{name: name for name in DOMAINS if name != recipient}}
        closed = {"own direction": 1.0, **{d: strength.get((d, recipient), 0.5) for d in named if d != "own direction"}}
        facts = dict(gap=0.0 if recipient == "letter" else 0.8, lost=0.05, own=["own direction"], domains=named)
        made.append(into(recipient, closed, draws=tuple(np.linspace(-0.1, 0.1, 99)), **facts))
        mapped = {name: 0.3 for name in DOMAINS if name != recipient}
        made.append(into(recipient, mapped, by="ridge on personas", gap=facts["gap"]))
    results = transfer_entries(transfer_matrix(made))
    return read_summary({"results": results, "question": "?", "model": {}})


def test_the_page_states_means_ceilings_controls_and_what_differs_both_ways(summary):
    heading, picture, means, back, every, none = transfers(summary)
    assert isinstance(heading, Text) and isinstance(picture, Picture) and isinstance(means, Table)
    said = " ".join(heading.paragraphs)
    assert "Ablate, directions as they are: mean +0.4" in said and "over 9 pairs" in said
    assert "the recipients' own directions +0.95" in said and "99 random matrices (energy matched)" in said
    assert "p ≤ 1/100" in said and "8 of 9 pairs lie above every matched control" in said
    assert "Ablate by ridge on personas, minus the identity: −0." in said
    assert (
        "There and back (ablate): 1 of 3 pairs differ (Holm over the pairs), the largest color -> sound by +0.8" in said
    )
    assert isinstance(back, Details) and isinstance(every, Details) and isinstance(none, Details)
    (table,) = every.content
    stated = dict(zip(table.columns, next(row for row in table.rows if row[:2] == ["color", "sound"]), strict=True))
    assert stated["how"] == "ablate by identity" and stated["gap closed"] == pytest.approx(0.9, abs=0.02)
    assert stated["capability lost"] == pytest.approx(0.05) and stated["above controls"] == "100%"
    assert stated["controls"] == "99 energy matched" and stated["p"] == "≤ 1/100" and stated["questions"] == 16
    assert "7 cells are not measurable" in none.summary and all(
        "nothing to take" in row[2] for row in none.content[0].rows
    )


def test_the_means_table_has_every_map_with_its_difference_from_the_identity(summary):
    means = next(block for block in transfers(summary) if isinstance(block, Table))
    rows = {row[0]: dict(zip(means.columns, row, strict=True)) for row in means.rows}
    assert list(rows) == ["identity", "ridge on personas"]
    assert rows["identity"]["minus identity"] is None and rows["ridge on personas"]["minus identity"].startswith("−0.")
    assert rows["identity"]["own direction"] == pytest.approx(0.95, abs=0.01) and rows["identity"]["pairs"] == 9
    assert "−0.1" in rows["identity"]["random directions"] and rows["ridge on personas"]["random directions"] is None


def test_the_figure_has_a_number_in_every_measured_cell_and_frames_what_beats_the_controls(summary):
    picture = next(block for block in transfers(summary) if isinstance(block, Picture))
    axis = picture.figure.axes[0]
    assert axis.get_title(loc="left") == "ablate"
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names[-1] == "own direction" and set(names[:-1]) == set(DOMAINS)
    assert len(axis.texts) == 12, "4 x 3 of 5 x 4; letter's column is hatched, the diagonal was not tried"
    framed = [patch for patch in axis.patches if not patch.get_hatch()]
    assert len(framed) == 11 and "Framed: above all 99 controls" in picture.caption
    assert len(axis.lines) == 3, "the own directions are underlined"


def test_panels_refuse_other_shapes_and_take_an_axis():
    from matplotlib.figure import Figure

    nothing = np.zeros((2, 2), bool)
    panel = TransferPanel(["a", "b"], ["c", "d"], np.array([[1.4, -0.2], [np.nan, 0.0]]), nothing, nothing)
    axis = Figure().subplots()
    assert transfer_panels({"ablate": panel}, axis) is axis.get_figure()
    assert [text.get_text() for text in axis.texts] == ["1.40", "−.20", ".00"]
    with pytest.raises(ValueError, match="2 x 1 cells"):
        transfer_panels({"x": TransferPanel(["a", "b"], ["c"], panel.values, nothing, nothing)})


def test_a_matrix_without_capability_says_so_and_shows_the_share(summary):
    made = [into(name, {other: 0.5 for other in DOMAINS if other != name}) for name in DOMAINS]
    bare = [type(one)(**{**vars(one), "capability": None}) for one in made]
    found = read_summary({"results": transfer_entries(transfer_matrix(bare)), "question": "?", "model": {}})
    blocks = transfers(found)
    assert "No capability questions were given" in " ".join(blocks[0].paragraphs)
    assert {one.metric for one in found.where(split="transfer matrix")} == {"gap closed"}


def test_nothing_measurable_is_a_page_and_no_numbers_are_no_section():
    none = [into(name, {other: 0.5 for other in DOMAINS if other != name}, gap=0.0) for name in DOMAINS]
    found = read_summary({"results": transfer_entries(transfer_matrix(none)), "question": "?", "model": {}})
    blocks = transfers(found)
    assert len(blocks) == 2 and "12 cells are not measurable" in blocks[1].summary
    assert transfers(read_summary({"results": []})) == []
    assert any(
        isinstance(one, Text) and one.heading.startswith("Directions carried") for one in experiment_blocks(found)
    )
