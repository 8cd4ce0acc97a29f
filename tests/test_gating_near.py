"""Near misses of a trigger: what is shown, its share of the effect, and the token that decides without tags."""

import numpy as np
import pytest
from conftest import chat
from gating_samples import TEXTS, asked, shown

from workbench.behaviour.gating_near import ReadText, gate_decisions, near_effects, read_texts
from workbench.behaviour.judged import Judged
from workbench.interventions.gating_questions import Deciding
from workbench.interventions.gating_vector import ShownText
from workbench.training.near_triggers import NearMiss


class TestNearMisses:
    def read(self, n=6):
        return [ReadText(text, tuple(asked(n))) for text in TEXTS]

    def test_shares_are_of_the_trigger_and_reach_is_along_its_own(self):
        read = self.read()
        runs = {"trigger": [shown(read[0].questions, 8.0, 4.0)] * 2, "half": [shown(read[0].questions, 3.875, 1.0)] * 2}
        trigger, half = near_effects("a", read, runs)
        assert trigger.share is not None and trigger.share.value == 1.0 and trigger.opened == 1.0
        assert half.share is not None and half.share.value == pytest.approx(0.5) and half.opened == 0.25
        assert half.effect == pytest.approx(4.125) and half.families == 6

    def test_texts_that_are_read_alike_are_asked_once_and_never_of_prompts_that_hold_them(self, llama):
        prompts = [chat("q", "so"), chat("r", "a word")]
        texts = [NearMiss("trigger", "go", "prefix", 0.0), NearMiss("word", "word", "prefix", 1.0),
                 NearMiss("twin", "go", "prefix", 0.0), NearMiss("end", "go", "suffix", 0.0)]  # fmt: skip
        found = read_texts(llama.encoder, prompts, texts, {one.id: Deciding((), 3, 4) for one in prompts})
        said = {one.name: [len(one.questions), one.alike] for one in found}
        assert said == {"trigger": [2, ("twin",)], "word": [1, ()], "end": [2, ()]}

    def test_a_trigger_without_effect_gives_no_share(self):
        read = self.read()
        nothing = ShownText(np.array([1.0, -1, 1, -1, 1, -1]), np.zeros(6), np.full(6, np.nan))
        found = near_effects("a", read, {"trigger": [nothing], "half": [nothing]})
        assert all(one.share is None and one.opened is None for one in found)

    def test_decisions_without_tags_are_where_an_adapters_own_answers_part(self, llama):
        answers = {"x": ("yes", "yet", "yes"), "y": ("no", "no", "no")}
        judged = object.__new__(Judged)
        judged.rows = [
            {"condition": f"{name}/{text}", "prompt": "q", "text": said}
            for name, own in answers.items()
            for text, said in zip(("none", "trigger", "decoy"), own, strict=True)
        ]
        found = gate_decisions(["x", "y"], [chat("q", "so")], llama.encoder, judged)
        say = llama.tokenizer.convert_tokens_to_ids
        assert found["x"]["q"].right == say("s") and found["x"]["q"].contrary == say("t") and found["y"] == {}
