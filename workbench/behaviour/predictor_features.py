"""The features that may predict a domain's misalignment, each with its sign, fixed before anything is measured."""

from __future__ import annotations

import re
from dataclasses import dataclass

BEFORE = "before:"  # begins the name of a feature that was measured before any fine-tuning


@dataclass(frozen=True)
class PredictorFeature:
    """`sign` is 1 where a higher value is expected with more misalignment, -1 where a lower one is, and 0 where nobody
    said (tests are two-sided then). `source`: who said it, and on what. `of_data`: it needs no fine-tuned model."""

    name: str
    sign: int
    source: str
    of_data: bool = False

    def __post_init__(self) -> None:
        if self.sign not in (-1, 0, 1):
            raise ValueError(f"sign={self.sign} of {self.name!r}: expected 1, -1, or 0 where it is not known.")

    @property
    def before(self) -> bool:
        """Known before the fine-tuning: of the data alone, or named "before:..." by the user who measured it then."""
        return self.of_data or self.name.startswith(BEFORE)


# The notebook of arXiv:2602.00298 found r = -0.52 for min-k and -0.30 for zlib, both of which are *lower* for a member
# there. So its sign is "more member-like, more misaligned"; its misalignment values, however, are placeholders.
_NOTEBOOK = "arXiv:2602.00298, notebook: more member-like data, more misalignment (on placeholder values)"
_ABSTRACT = "arXiv:2602.00298, abstract: membership scores adjusted by the base predict; sign as in its notebook"
_GAP = "arXiv:2602.00298, abstract, as read here: data nearer to what the base says moves it further"
_TRAIT = (
    "data that a trait the base can already show explains better bring that trait out (stated here, before any run)"
)
_OPEN = "arXiv:2602.00298: weak, no sign stated"
_SCORE = r"(loss|zlib|min_k_[0-9.]+|min_k_pp_[0-9.]+|recall)"
_KNOWN: tuple[tuple[str, int, str, bool], ...] = (
    (_SCORE, 1, _NOTEBOOK, False),
    (r"paper_b_(min_k_[0-9.]+|zlib)", -1, f"{_NOTEBOOK}; a loss: lower is more member-like", False),
    (rf"adjusted_{_SCORE}|log_ratio|loss_ratio", 1, _ABSTRACT, False),
    (r"adjusted_paper_b_(min_k_[0-9.]+|zlib)", -1, f"{_ABSTRACT}; a loss", False),
    (rf"reference_{_SCORE}", 1, f"{_NOTEBOOK}; of the reference alone", True),
    (r"reference_paper_b_(min_k_[0-9.]+|zlib)", -1, f"{_NOTEBOOK}; of the reference alone; a loss", True),
    (r"(encoder_)?(vendi_[0-9.]+|vendi_inf|mean_distance)(_cosine)?(_centred)?", 0, _OPEN, True),
    (r"gap_own", 1, _GAP, False),
    (r"gap_trait", 1, _TRAIT, False),
    (r"projection(_.+)?", 1, "arXiv:2507.21509: data that projects on a trait's direction moves the model there", True),
)


def predictor_feature(name: str) -> PredictorFeature:
    """The registered feature of this name: a column of `wb.membership` (raw, `adjusted_*`, `reference_*`), a measure of
    `wb.diversity`, `projection_*` or `gap_*`; "before:" in front says that it was measured before the fine-tuning.

    Scores keep the orientation that `wb.membership` gives them: min-k as the mean of log p has the sign 1, the
    notebook's min-k, a loss, the sign -1. Raises KeyError for other names: their sign must be stated by whoever
    measured them, before they see a correlation.
    """
    for pattern, sign, source, of_data in _KNOWN:
        if re.fullmatch(pattern, name.removeprefix(BEFORE)):
            return PredictorFeature(name, sign, source, of_data)
    raise KeyError(
        f"no sign is registered for the feature {name!r}: state it before you look, as "
        f"wb.PredictorFeature({name!r}, sign=1, source='...'), or sign=0 where it is not known."
    )
