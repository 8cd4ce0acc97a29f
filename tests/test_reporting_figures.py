"""Figures: each draws alone and into an axis that is given, and refuses what it cannot show."""

from __future__ import annotations

import numpy as np
import pytest
from planted_run import HOSTILE

from workbench import reporting
from workbench.reporting import style


def drawn_figures():
    """Every figure function with small data, as (name, function of an axis)."""
    rng = np.random.default_rng(1)
    many = {kind: rng.random((99, 34)) for kind in style.CONTROLS}
    layers = reporting.LayerCurve(range(34), rng.random(34), np.sort(rng.random((34, 2))), many, 0.0, 1.0, 0.2)
    dose = reporting.DoseCurve(np.arange(3.0), {"contrary": rng.random(3)}, control=rng.random((9, 3)))
    bars = {"Text": {HOSTILE: {"right": reporting.Bar(0.5, (0.4, 0.6))}}}
    observed = {"Text": reporting.Observed(0.1, {"own": rng.random(99)})}
    return {
        "by_layer": lambda axis: reporting.rate_by_layer({"Text": layers}, axis),
        "dose": lambda axis: reporting.rates_by_dose({"Text": dose}, axis),
        "spectrum": lambda axis: reporting.variance_spectrum({"L1": reporting.Spectrum(np.array([1.0]))}, axis),
        "cosines": lambda axis: reporting.cosine_matrix(["a", HOSTILE], np.eye(2), axis),
        "transfer": lambda axis: reporting.transfer_matrix(["a"], ["b", "c"], np.array([[0.1, np.nan]]), axis),
        "bars": lambda axis: reporting.condition_bars(bars, axis),
        "null": lambda axis: reporting.null_distributions(observed, axis),
    }  # fmt: skip


class TestFigures:
    @pytest.mark.parametrize("name", drawn_figures())
    def test_each_draws_alone_and_into_a_given_axis(self, name, tmp_path):
        from matplotlib.figure import Figure

        draw = drawn_figures()[name]
        alone = draw(None)
        assert alone.get_figwidth() == style.COLUMN
        assert reporting.save_png(alone, tmp_path / "new" / f"{name}.png").stat().st_size > 5_000
        mine = Figure()
        assert draw(mine.add_subplot()) is mine
        svg = reporting.as_svg(mine)
        assert svg.startswith("<svg") and svg.endswith("</svg>") and "<script" not in svg

    def test_as_many_axes_as_panels(self):
        from matplotlib.figure import Figure

        spectrum = reporting.Spectrum(np.array([1.0]))
        with pytest.raises(ValueError, match="as many axes"):
            reporting.variance_spectrum({"a": spectrum, "b": spectrum}, Figure().add_subplot())
        with pytest.raises(ValueError, match="at most 4"):
            reporting.variance_spectrum({str(n): spectrum for n in range(5)})
        with pytest.raises(ValueError, match="nothing to draw"):
            reporting.rate_by_layer({})

    def test_matrices_refuse_what_they_cannot_show(self):
        with pytest.raises(ValueError, match="2 x 2"):
            reporting.cosine_matrix(["a", "b"], np.eye(3))
        with pytest.raises(ValueError, match="Normalise"):
            reporting.cosine_matrix(["a"], np.array([[1.7]]))
        with pytest.raises(ValueError, match="1 x 2"):
            reporting.transfer_matrix(["a"], ["b", "c"], np.eye(2))

    def test_cosines_have_symmetric_limits(self):
        figure = reporting.cosine_matrix(["a", "b"], np.array([[1.0, 0.2], [0.2, 1.0]]))
        assert figure.axes[0].collections[0].get_clim() == (-1.0, 1.0)

    def test_the_count_in_the_null_figure_counts_ties(self):
        panel = reporting.Observed(0.5, {"isotropic": np.array([0.4, 0.5, 0.6])})
        words = [text.get_text() for text in reporting.null_distributions({"T": panel}).axes[0].texts]
        assert words == ["2 of 3\nas extreme"]
        with pytest.raises(ValueError, match="no control draws"):
            reporting.null_distributions({"T": reporting.Observed(0.5, {})})
