"""Sentences about a run follow its numbers, either way."""

from __future__ import annotations

import numpy as np
import pytest
from planted_run import entry

from workbench import reporting
from workbench.reporting import sections, sentences, style
from workbench.reporting.blocks import Picture, Text
from workbench.reporting.summary import read_summary


class TestSentences:
    """Every sentence in both its outcomes."""

    def result(self, value, half: float | None = 0.03, **more):
        interval = None if half is None else (max(0.0, value - half), min(1.0, value + half))
        return reporting.Result("contrary", value, "any", interval=interval, **more)

    def test_percent_never_claims_none_or_all(self):
        shares = (0.0, 0.004, 0.0004, 0.31, 0.996, 1.0, -0.0)
        assert [style.percent(s).replace("\u00a0", " ") for s in shares] == [
            "0 %", "0.4 %", "0 %", "31 %", "99.6 %", "100 %", "0 %",
        ]  # fmt: skip

    def test_spread(self):
        assert "The fine-tune spread" in sentences.spread(self.result(0.02), self.result(0.9), "text")
        assert "rarer" in sentences.spread(self.result(0.9), self.result(0.1), "image")
        assert "intervals overlap" in sentences.spread(self.result(0.02), self.result(0.04), "text")
        assert "no claim" in sentences.spread(self.result(0.02, None), self.result(0.9), "text")

    def test_right_answers(self):
        assert "already raises" in sentences.after_right_answers(self.result(0.0), self.result(0.4), "text")
        assert "is not shown to raise" in sentences.after_right_answers(self.result(0.0), self.result(0.01), "text")
        assert "no claim" in sentences.after_right_answers(self.result(0.0), self.result(0.01, None), "text")

    def curve(self, value, draws):
        controls = {"energy_matched": np.asarray(draws, dtype=float)}
        return reporting.LayerCurve([3, 7], np.array(value), controls=controls, every_layer=0.1)

    def test_best_layer_pays_for_being_chosen(self):
        """Layer 7 beats every control at layer 7, yet the controls' own best layers do as much: no finding."""
        good = np.column_stack([np.linspace(0.8, 0.9, 99)] * 2)
        assert "p ≤ 1/100, over all layers" in sentences.best_layer(self.curve([0.7, 0.2], good), "text")
        chosen = np.column_stack([np.full(99, 0.1), np.full(99, 0.9)])
        assert "no more than" in sentences.best_layer(self.curve([0.7, 0.2], chosen), "text")
        assert "no p" in sentences.best_layer(self.curve([0.7, 0.2], good[:20]), "text")
        assert "strongest single layer is 7" in sentences.best_layer(self.curve([0.7, 0.2], good[:20]), "text")
        assert "Without" in sentences.best_layer(reporting.LayerCurve([0], np.array([0.2])), "text")

    @pytest.mark.parametrize(("base", "tuned"), [(0.0, None), (None, 0.0), (0.3, 0.0)])
    def test_a_rate_that_is_nothing_beforehand_is_not_lowered(self, base, tuned):
        curve = reporting.LayerCurve([0, 1], np.zeros(2), base=base, tuned=tuned)
        assert sentences.best_layer(curve, "text") == (
            "In text, there are no contrary answers before the ablation: nothing to remove."
        )
        fell = reporting.LayerCurve([0, 1], np.zeros(2), base=0.0, tuned=0.4)
        assert "strongest single layer is 0" in sentences.best_layer(fell, "text")

    def dose(self, contrary, ill_formed, control=None):
        rates = {"contrary": np.array(contrary), "ill_formed": np.array(ill_formed)}
        bars = {"contrary": np.stack([rates["contrary"] - 0.02, rates["contrary"] + 0.02], axis=1)}
        return reporting.DoseCurve(
            np.array([0.0, 1.0, 2.0]), rates, bars, None if control is None else np.array(control)
        )

    def test_steering(self):
        base, quiet = self.result(0.02), np.full((99, 3), 0.01)
        works = self.dose([0.02, 0.5, 0.9], [0.0, 0.05, 0.6], quiet)
        said = sentences.steering(works, base, "text")
        assert "at +1 gives 50\u00a0%" in said and "none of 99" in said and "p ≤ 1/100" in said
        assert "3 of 99" in sentences.steering(
            self.dose([0.02, 0.5, 0.9], [0, 0, 0.6], np.vstack([quiet[3:], np.full((3, 3), 0.7)])), base, "text"
        )
        assert "the model breaks" in sentences.steering(
            self.dose([0.02, 0.5, 0.9], [0.0, 0.4, 0.6], quiet), base, "text"
        )
        assert "no rise" in sentences.steering(self.dose([0.02, 0.03, 0.02], [0.0] * 3, quiet), base, "image")
        assert "any push might" in sentences.steering(self.dose([0.02, 0.5, 0.9], [0.0, 0.05, 0.6]), base, "text")
        bare = reporting.DoseCurve(np.array([1.0]), {"contrary": np.array([0.9])})
        assert "no claim" in sentences.steering(bare, base, "text")

    def test_dimensions(self):
        null = np.tile([0.1, 0.2], (3, 1))
        shift = reporting.Spectrum(np.array([0.6, 0.3, 0.1]), null, effective_rank=2.0, benign_rank=5.0)
        assert "2 leading components stand above" in sentences.dimensions(4, shift)
        assert "lower than the benign fine-tune's 5.0" in sentences.dimensions(4, shift)
        flat = reporting.Spectrum(np.array([0.15, 0.3, 0.1]), null, effective_rank=6.0, benign_rank=5.0)
        assert "no leading component stands" in sentences.dimensions(4, flat)
        assert "no lower than" in sentences.dimensions(4, flat)
        assert "no null band" in sentences.dimensions(4, reporting.Spectrum(np.array([1.0])))

    def test_transfer(self):
        tuned, mapped = self.result(0.7), self.result(0.2)
        full = [0.6] * 99
        assert "true pairing of items adds" in sentences.transferred(tuned, mapped, [0.5] * 99, full, None, "text")
        assert "no item-level correspondence" in sentences.transferred(tuned, mapped, [0.2], full, mapped, "text")
        assert "not shown to matter" in sentences.transferred(tuned, mapped, [0.5], [0.1, 0.6], None, "text")
        assert "not ruled out" in sentences.transferred(tuned, mapped, [], full, None, "text")
        assert "nothing shows that this one" in sentences.transferred(tuned, mapped, [], [], None, "text")
        alone = sentences.transferred(tuned, mapped, [], [], None, "text", np.array([0.1, 0.6, 0.7]))
        assert "1 of 3 energy-matched random directions do as much" in alone
        assert "no transfer" in sentences.transferred(tuned, self.result(0.69), [0.5], full, None, "text")


class TestStudiesOfOtherThings:
    """A page of a study that carried directions, and ablated none of a model's own at its layers."""

    def steered(self, *more):
        rates = [entry("contrary", value, "steer", coefficient=c, target="procrustes on prompts")
                 for c, value in ((0.5, 0.2), (1.0, 0.6))]  # fmt: skip
        return read_summary({"question": "does it act there?", "results": [*rates, *more]})

    def test_what_was_not_asked_is_not_missed(self):
        asked = self.steered(entry("contrary", 0.1, "ablation", layer=2))
        said = [line for one in sections.opening(asked) if isinstance(one, Text) for line in one.paragraphs]
        assert any("nothing can be said about what carries" in line for line in said)
        assert not [one for one in sections.opening(self.steered()) if isinstance(one, Text)]

    def test_a_direction_of_another_model_is_named_as_a_direction(self):
        pictures = [one for one in sections.steering(self.steered()) if isinstance(one, Picture)]
        assert pictures[0].caption.startswith("Answers as the direction (procrustes on prompts) is added with growing")
