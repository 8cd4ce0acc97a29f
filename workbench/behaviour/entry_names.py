"""Names in a summary's entries that a page selects by: it is made without the models that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

DATA, ADAPTERS = "data sets", "adapters"  # splits: of a population's data and of its members
NO_TEXT = "none"  # what was shown: the question without any trigger
ALL_DOMAINS = "all domains"  # condition: means over the domains whose gate was located
ON_THE_BASE = ", base"  # behind a domain's name: the base model on that domain's questions
SHARE_PATCHED: Mapping[Literal["in", "out"], str] = {"in": "share patched in", "out": "share patched out"}
NOT_LOCATED = "gate not located"
