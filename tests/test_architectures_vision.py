"""Every image encoder of the zoo by itself: its blocks are found as the tower "vision", or refused with the reason."""

from __future__ import annotations

import pytest
import zoo
from zoo_expected import NOT_BUILT
from zoo_rows import examined

ENCODERS = [name for name in zoo.families("vision") if ("vision", name) not in NOT_BUILT]


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder(name, record_property):
    examined("vision", name, record_property)
