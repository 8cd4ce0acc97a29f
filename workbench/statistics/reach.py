"""What a study of n domains can show at all: how large a correlation must be, and what coverage it can promise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special

from workbench.statistics.conformal import highest_level, least_units
from workbench.statistics.correlation import critical_correlation


@dataclass(frozen=True)
class Reach:
    """Of n units and `features` predictors looked at, two-sided at 5 %: the least |r| that is significant, the same
    when every predictor counts as a test (Bonferroni), the true |r| that is found four times in five (Fisher z), how
    many units a true |r| of one half takes for that, and the highest coverage that the n - 1 others can promise."""

    n: int
    features: int
    critical: float
    critical_of_all: float
    found_mostly: float
    needed_for_half: int
    highest_level: float

    def __str__(self) -> str:
        several = (
            f", and {self.critical_of_all:.2f} when the best of {self.features} is looked for"
            if self.features > 1
            else ""
        )
        return (
            f"{self.n} domains: |r| must exceed {self.critical:.2f} to be significant (two-sided, 5 %){several}; a "
            f"true |r| of {self.found_mostly:.2f} is found four times in five, one of 0.5 only with "
            f"{self.needed_for_half} domains. An interval from the {self.n - 1} other domains can promise at "
            f"most {self.highest_level:.1%} coverage (95 % takes {least_units(0.95)} others)."
        )


def reach(n: int, features: int = 1) -> Reach:
    """What n domains can show. Raises ValueError for n < 4."""
    if n < 4 or features < 1:
        raise ValueError(f"reach({n}, {features}): expected at least 4 domains and 1 feature.")
    z = float(special.ndtri(0.975) + special.ndtri(0.8))
    needed = math.ceil(3 + (z / math.atanh(0.5)) ** 2)
    found = math.tanh(z / math.sqrt(n - 3))
    critical = critical_correlation(n), critical_correlation(n, 0.05 / features)
    return Reach(n, features, *critical, found, needed, highest_level(n - 1))
