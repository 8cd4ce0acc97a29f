"""What shift_pca refuses, with the mend, and what it leaves out by name."""

from __future__ import annotations

import numpy as np
import pytest

from hooks.site import Site
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.shift import _refuse_options, shift_pca
from workbench.subspace.shift_site import Asked

SITE, OTHER = Site(3), Site(4)
N, D = 40, 24


def rows_of(values: np.ndarray, **more) -> ArrayRows:
    return ArrayRows({SITE: values}, **more)


@pytest.fixture
def both() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((N, D)) + 10 * rng.standard_normal(D)
    return base, base + rng.standard_normal((N, D))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(draws=20), "at least 99"),
        (dict(k=0), "expected at least 1"),
        (dict(classes="label"), "belongs to variant='between_class'"),
        (dict(at_most=1), "expected at least 2"),
        (dict(sites=[9]), "is not here"),
    ],
)
def test_what_cannot_be_is_refused(options, says, both):
    with pytest.raises(ValueError, match=says):
        shift_pca(rows_of(both[0]), rows_of(both[1]), **options)


@pytest.mark.parametrize(("name", "given"), [("variant", "pca"), ("scale", "z"), ("null", "rows")])
def test_unknown_names_are_refused_with_those_there_are(name, given):
    """Where types are not checked; under the tests' own type checks a Literal refuses first."""
    options = dict(variant="stacked", k=1, scale="none", shrinkage=None, null=None, draws=99, seed=0, classes=None)
    _refuse_options(Asked(**options))
    with pytest.raises(ValueError, match=f"{name}='{given}' is unknown: expected one of '"):
        _refuse_options(Asked(**{**options, name: given}))


def test_sources_that_are_no_rows_of_two_models_are_refused(both):
    base, tuned = both
    with pytest.raises(ValueError, match="holds differences already"):
        shift_pca(rows_of(base), rows_of(tuned - base, matched=N))
    with pytest.raises(ValueError, match="widths 24 and 8"):
        shift_pca(rows_of(base), rows_of(tuned[:, :8]))
    constant = rows_of(base + 3.0)
    assert (
        "do not vary"
        in shift_pca(
            ArrayRows({SITE: base, OTHER: base}), ArrayRows({SITE: base + 3.0, OTHER: tuned}), null=None
        ).skipped[SITE]
    )
    with pytest.raises(ValueError, match="do not vary"):
        shift_pca(rows_of(base), constant, sites=[SITE])
    with pytest.raises(ValueError, match="keep no rows"):
        shift_pca(_Sums(), rows_of(tuned))


class _Sums:
    """What streamed moments look like from here."""

    parts = ()
