"""Every family of the zoo, causal and image-text: what works is held to, and what does not is named with its reason.

A family that is not in `zoo_expected.EXPECTED` passes every check that applies to it. The run writes
docs/architectures.md (`zoo_table.py`).
"""

from __future__ import annotations

import pytest
import zoo
from zoo_expected import EXPECTED, GOALS, NOT_BUILT
from zoo_rows import examined

pytestmark = pytest.mark.filterwarnings("ignore")  # peft speaks of experts and of Conv1D

CAUSAL, IMAGE_TEXT = (
    [name for name in zoo.families(kind) if (kind, name) not in NOT_BUILT] for kind in GOALS if kind != "vision"
)


@pytest.mark.parametrize("name", CAUSAL)
def test_causal(name, record_property):
    examined("causal", name, record_property)


@pytest.mark.parametrize("name", IMAGE_TEXT)
def test_image_text(name, record_property):
    examined("image-text", name, record_property)


@pytest.mark.parametrize(("kind", "check"), [(kind, check) for kind in GOALS for check in GOALS[kind]])
def test_as_many_families_as_the_design_asks_for(kind, check):
    """Each family's test holds it to its row, so the expected rows count."""
    names = [name for name in zoo.families(kind) if (kind, name) not in NOT_BUILT]
    without = [name for name in names if {check, "stream"} & set(EXPECTED.get((kind, name), {}))]
    if check in ("vision", "image") and kind == "image-text":
        without += ["evolla", "mistral4", "diffusion_gemma"]  # no picture made for them
    assert len(names) - len(set(without)) >= GOALS[kind][check]


@pytest.mark.skipif(
    not zoo.MEASURED, reason="zoo_expected.py is of transformers 5.23: measure again with zoo_report.py"
)
def test_every_expectation_is_of_a_family_that_exists():
    known = {(kind, name) for kind in GOALS for name in zoo.families(kind)}
    assert set(EXPECTED) | set(NOT_BUILT) <= known
    assert not set(EXPECTED) & set(NOT_BUILT)
