"""The promises that every back end keeps: `class TestMine(BackendContract): backend = "mine"`.

Each is held against a module that nobody wrapped, hooked by hand (`own_forward.py`), on six families of tiny models.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from contract_subject import (
    BRANCHES,
    ENDS,
    LETTERS,
    PLACES,
    PROMPTS,
    SCOPES,
    STEPS,
    TOLERANCE,
    Subject,
    added,
    by_full_forwards,
    direction,
    everything,
    off,
    spelled,
)
from own_forward import OwnForward, plus
from tiny_lm import LANGUAGE_MODELS, LAYERS, WIDTH
from tiny_models import byte_tokenizer
from torch import Tensor

from hooks.backends.hf import HuggingFaceModel
from hooks.edits import bank, identity
from hooks.load import load_model
from hooks.model import NothingEdited
from hooks.site import Site
from workbench.capturing import capture


class BackendContract:
    """Set `backend`, and `attention` where the back end runs another kernel than the module came with."""

    backend: str
    attention: str | None = None

    @pytest.fixture(scope="class", params=list(LANGUAGE_MODELS))
    def subject(self, request: pytest.FixtureRequest) -> Subject:
        make = LANGUAGE_MODELS[request.param]
        own = make()
        if self.attention is not None:
            own.set_attn_implementation(self.attention)
        inputs = spelled([[*one.prompt, *one.response] for one in LETTERS])
        return Subject(load_model(make(), byte_tokenizer(), backend=self.backend), OwnForward(own), inputs)

    # What is read.

    def test_prompts_become_the_tokens_spelled_by_hand(self, subject: Subject) -> None:
        batch = subject.model.encode(PROMPTS)
        assert {name: value.tolist() for name, value in batch.inputs.items()} == {
            name: value.tolist() for name, value in subject.inputs.items()
        }

    def test_residuals_and_logits_equal_plain_hooks(self, subject: Subject) -> None:
        """At every layer; and the logits are those behind each row's own last token, not behind its pads."""
        keep = {Site(*place): everything for place in PLACES}
        trace = subject.model.run(subject.model.encode(PROMPTS), keep)
        residuals, logits = subject.own(subject.inputs)
        for layer, point in PLACES:
            kept = trace.kept[Site(layer, point)]
            assert off(kept[subject.real], residuals[layer, point][subject.real]) < TOLERANCE, (layer, point)
        assert trace.logits is not None and off(trace.logits, subject.last(logits)) < TOLERANCE
        assert off(trace.logits, logits[:, -1]) > 1e-2, "the meta-test: pads would show"

    def test_a_padded_batch_equals_its_rows_alone(self, subject: Subject) -> None:
        keep = {Site(layer): everything for layer in range(LAYERS)}
        together = subject.model.run(subject.model.encode(PROMPTS), keep)
        for row, prompt in enumerate(PROMPTS):
            alone = subject.model.run(subject.model.encode([prompt]), keep)
            assert together.logits is not None and alone.logits is not None
            assert off(together.logits[row : row + 1], alone.logits) < TOLERANCE
            for site in keep:
                kept = together.kept[site][row : row + 1, : alone.kept[site].shape[1]]
                assert off(kept, alone.kept[site]) < TOLERANCE, (site, row)

    def test_branches_sum_to_the_stream(self, subject: Subject) -> None:
        """`resid_pre + attn_out = resid_mid`, `+ mlp_out = resid_post`; post-norm families included."""
        points = ("resid_pre", *BRANCHES, "resid_post")
        keep = {Site(layer, point): everything for layer in range(LAYERS) for point in points}
        kept = subject.model.run(subject.model.encode(PROMPTS), keep).kept
        for layer in range(LAYERS):
            pre, attn, mid, mlp, post = (kept[Site(layer, point)][subject.real] for point in points)
            assert off(pre + attn, mid) < TOLERANCE and off(mid + mlp, post) < TOLERANCE, layer
            assert off(pre, mid) > 1e-2 and off(mid, post) > 1e-2, "the meta-test: both branches add something"

    def test_without_logits_the_numbers_are_the_same(self, subject: Subject) -> None:
        batch, keep = subject.model.encode(PROMPTS), {Site(0): everything, Site(1, "resid_pre"): everything}
        whole, cut = subject.model.run(batch, keep), subject.model.run(batch, keep, logits=False)
        assert cut.logits is None and all(torch.equal(cut.kept[site], whole.kept[site]) for site in keep)

    # What is edited.

    @pytest.mark.parametrize("point", ["resid_pre", "resid_post"])
    def test_an_edit_at_any_layer_equals_a_forward_hooked_by_hand(self, subject: Subject, point: str) -> None:
        batch, vector = subject.model.encode(PROMPTS), direction()
        plain = subject.last(subject.own(subject.inputs)[1])
        keep = {Site(layer, other): everything for layer, other in PLACES}
        for layer in range(LAYERS):
            trace = subject.model.run(batch, keep, {Site(layer, point): [added(vector)]})
            residuals, logits = subject.own(subject.inputs, {(layer, point): plus(vector, subject.real)})
            assert trace.logits is not None and off(trace.logits, subject.last(logits)) < TOLERANCE, layer
            for place in PLACES:  # the edited site too: what is kept is what the next block sees
                found, expected = trace.kept[Site(*place)][subject.real], residuals[place][subject.real]
                assert off(found, expected) < TOLERANCE, (layer, place)
            assert off(trace.logits, plain) > 1e-2, "the meta-test: the edit acts"

    @pytest.mark.parametrize("point", BRANCHES)
    def test_an_edit_of_a_branch_moves_the_stream_by_as_much(self, subject: Subject, point: str) -> None:
        """What is added to attn_out or resid_mid reaches the MLP; what is added to mlp_out does not."""
        batch, vector, layer = subject.model.encode(PROMPTS), direction(), 1
        keep = {Site(layer, other): everything for other in (*BRANCHES, "resid_post")}
        before = subject.model.run(batch, keep).kept
        after = subject.model.run(batch, keep, {Site(layer, point): [added(vector)]}).kept
        real = subject.real
        mid, mlp, post = (
            after[Site(layer, other)] - before[Site(layer, other)] for other in ("resid_mid", "mlp_out", "resid_post")
        )
        if point == "mlp_out":
            assert not mid[real].any() and off(post[real], vector.expand_as(post[real])) < 10 * TOLERANCE
        else:
            assert off(mid[real], vector.expand_as(mid[real])) < 10 * TOLERANCE
            assert off(post[real], (mid + mlp)[real]) < 10 * TOLERANCE and float(mlp[real].abs().max()) > 1e-2

    @pytest.mark.parametrize("scope", SCOPES, ids=str)
    def test_scopes_are_the_positions_counted_by_hand(self, subject: Subject, scope: Any) -> None:
        batch, vector, mask = subject.model.encode(PROMPTS), direction(), subject.mask(scope)
        trace = subject.model.run(batch, {Site(1): everything}, {Site(1): [added(vector, scope)]})
        residuals, logits = subject.own(subject.inputs, {(1, "resid_post"): plus(vector, mask)})
        assert trace.tallies[Site(1)][0].edited.tolist() == mask.sum(dim=1).tolist()
        assert trace.untouched() == [row for row in range(len(mask)) if not mask[row].any()]
        assert off(trace.kept[Site(1)][subject.real], residuals[1, "resid_post"][subject.real]) < TOLERANCE
        assert trace.logits is not None and off(trace.logits, subject.last(logits)) < TOLERANCE

    def test_each_row_has_its_own_edit(self, subject: Subject) -> None:
        """Two cells of a bank, given out to rows 0, 2 and 3; row 1 stays as it is, bit for bit."""
        batch, vectors = subject.model.encode(PROMPTS), [direction(1), direction(2)]
        edit = bank([added(vectors[0]), added(vectors[1], "last")], WIDTH).for_rows([1, -1, 0, 1])
        keep = {Site(LAYERS - 1): everything}
        trace, plain = subject.model.run(batch, keep, {Site(0): [edit]}), subject.model.run(batch, keep)
        last, everywhere = subject.mask("last"), subject.real
        by_row = torch.stack([vectors[1], torch.zeros(WIDTH), vectors[0], vectors[1]])
        mask = torch.stack([last[0], torch.zeros_like(last[1]), everywhere[2], last[3]])
        _, logits = subject.own(subject.inputs, {(0, "resid_post"): plus(by_row, mask)})
        assert trace.logits is not None and off(trace.logits, subject.last(logits)) < TOLERANCE
        assert trace.untouched() == [1] and trace.tallies[Site(0)][0].edited.tolist() == mask.sum(dim=1).tolist()
        assert torch.equal(trace.kept[Site(LAYERS - 1)][1], plain.kept[Site(LAYERS - 1)][1])

    def test_edits_at_one_site_act_in_list_order(self, subject: Subject) -> None:
        batch, unit = subject.model.encode(PROMPTS), direction(size=1.0)
        gone = replace(added(unit), gain=-torch.ones(1, 1), shift=torch.zeros(1, 1))
        for order, expected in [([added(unit), gone], 0.0), ([gone, added(unit)], 1.0)]:
            kept = subject.model.run(batch, {Site(1): everything}, {Site(1): order}).kept[Site(1)][subject.real]
            assert float((kept @ unit - expected).abs().max()) < TOLERANCE * float(kept.abs().max())

    def test_a_zero_edit_is_bit_equal(self, subject: Subject) -> None:
        batch, keep = subject.model.encode(PROMPTS), {Site(layer, point): everything for layer, point in PLACES}
        plain = subject.model.run(batch, keep)
        edited = subject.model.run(batch, keep, {site: [identity(2, WIDTH)] for site in keep})
        assert plain.logits is not None and edited.logits is not None and torch.equal(edited.logits, plain.logits)
        assert all(torch.equal(edited.kept[site], plain.kept[site]) for site in keep)

    def test_what_was_kept_is_not_changed_by_later_edits(self, subject: Subject) -> None:
        """Block 0's output and block 1's input share their storage."""
        batch = subject.model.encode(PROMPTS)
        plain = subject.model.run(batch, {Site(0): everything}).kept[Site(0)].clone()
        in_place = {Site(1, "resid_pre"): [lambda resid, where: resid.add_(direction())]}
        trace = subject.model.run(batch, {Site(0): everything}, in_place)
        assert torch.equal(trace.kept[Site(0)], plain) and trace.untouched() == []

    # Generation.

    @pytest.mark.parametrize("scope", ["all", "prompt", "last", "answering", "response", 30, "re:^[aeiou]$"], ids=str)
    def test_generation_under_an_edit_equals_greedy_full_forwards(self, subject: Subject, scope: Any) -> None:
        vector = direction(size=8.0)
        out = subject.model.generate(
            subject.model.encode(PROMPTS),
            edits={Site(1): [added(vector, scope)]},
            max_new_tokens=STEPS,
            eos_token_id=ENDS,
            must_edit=False,
        )
        answers, counts = by_full_forwards(subject, [vector] * len(LETTERS), [scope] * len(LETTERS))
        assert out.token_ids == answers and out.tallies[Site(1)][0].edited.tolist() == counts
        assert out.finished == [answer[-1] in ENDS for answer in answers]

    def test_generation_with_an_edit_a_row(self, subject: Subject) -> None:
        vectors, scopes = [direction(1, 8.0), direction(2, 8.0)], ["all", "answering"]
        edit = bank([added(vector, scope) for vector, scope in zip(vectors, scopes, strict=True)], WIDTH)
        cells = [1, -1, 0, 1]
        out = subject.model.generate(
            subject.model.encode(PROMPTS),
            edits={Site(0): [edit.for_rows(cells)]},
            max_new_tokens=STEPS,
            eos_token_id=ENDS,
        )
        by_row = [vectors[cell] if cell >= 0 else torch.zeros(WIDTH) for cell in cells]
        answers, _ = by_full_forwards(subject, by_row, [scopes[max(cell, 0)] for cell in cells], layer=0)
        unedited, _ = by_full_forwards(subject, [torch.zeros(WIDTH)] * 4, ["all"] * 4, layer=0)
        assert out.token_ids == answers and answers != unedited and out.untouched() == [1]

    def test_sampling_is_that_of_the_plain_model(self, subject: Subject) -> None:
        """The same draws from the same distribution, its temperature and nucleus included."""
        options = dict(do_sample=True, temperature=0.8, top_p=0.9, max_new_tokens=STEPS, eos_token_id=ENDS)
        plain = load_model(subject.own.module, byte_tokenizer(), check=False)
        answers = []
        for model in (subject.model, plain):
            torch.manual_seed(3)
            edits = {Site(1): [added(direction())]}
            answers.append(model.generate(model.encode(PROMPTS), edits=edits, **options).token_ids)
        assert answers[0] == answers[1]

    def test_what_is_kept_while_generating_is_the_residual_of_every_step(self, subject: Subject) -> None:
        prompt = PROMPTS[2]
        out = subject.model.generate(subject.model.encode([prompt]), {Site(1): everything}, max_new_tokens=STEPS)
        ids = torch.cat([spelled([LETTERS[2].prompt])["input_ids"], torch.tensor(out.token_ids)], dim=1)
        residuals, _ = subject.own({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        kept = torch.cat(out.kept[Site(1)], dim=1)
        assert off(kept, residuals[1, "resid_post"][:, : kept.shape[1]]) < TOLERANCE
        assert kept.shape[1] == ids.shape[1] - 1, "the last token was never read"

    # What is refused, and what is left behind.

    def test_an_edit_that_touches_nothing_is_refused(self, subject: Subject) -> None:
        batch = subject.model.encode(PROMPTS[:1])
        nowhere = {Site(1): [added(direction(), "response")]}
        with pytest.raises(NothingEdited, match="the edits at resid_post:1 touched no position of any row"):
            subject.model.run(batch, None, nowhere)
        assert subject.model.run(batch, None, nowhere, must_edit=False).untouched() == [0]
        with pytest.raises(NothingEdited, match="touched no position"):
            subject.model.generate(batch, edits={Site(1): [added(direction(), 10_000)]}, max_new_tokens=2)

    def test_a_site_that_does_not_exist_is_refused(self, subject: Subject) -> None:
        batch = subject.model.encode(PROMPTS)
        for wanted in ({"keep": {Site(LAYERS): everything}}, {"edits": {Site(LAYERS): [added(direction())]}}):
            for act in (subject.model.run, subject.model.generate):
                with pytest.raises(ValueError, match=r"resid_post:3 is outside this model: expected layers 0\.\.2"):
                    act(batch, **wanted)
        with pytest.raises(ValueError, match=r"vision\.resid_post:0 is outside this model: it has no vision tower"):
            subject.model.run(batch, {Site(0, "resid_post", "vision"): everything})

    def test_nothing_is_left_behind(self, subject: Subject) -> None:
        """Not after a run, nor after an error inside an edit or a keep, nor after an early stop."""
        batch = subject.model.encode(PROMPTS)
        plain = subject.model.run(batch).logits  # TransformerLens wires hooks of its own at the first run
        before = self.left_behind(subject.model)

        def breaks(resid: Tensor, where: Any) -> Tensor:
            raise ArithmeticError("inside the edit")

        def check() -> None:
            assert self.left_behind(subject.model) == before
            again = subject.model.run(batch).logits
            assert again is not None and plain is not None and torch.equal(again, plain)

        for wanted in ({"edits": {Site(1): [breaks]}}, {"keep": {Site(0, "resid_pre"): breaks}}):
            for act in (subject.model.run, subject.model.generate):
                with pytest.raises(ArithmeticError, match="inside the edit"):
                    act(batch, **wanted)
                check()
        subject.model.run(batch, {Site(0): everything}, {Site(1): [added(direction())]}, logits=False)
        check()
        subject.model.generate(batch, edits={Site(1): [added(direction())]}, max_new_tokens=2)
        check()

    def left_behind(self, model: HuggingFaceModel) -> Any:
        """What a run could have left on the model: every hook, wherever it is."""
        return [
            (name, len(part._forward_hooks), len(part._forward_pre_hooks))
            for name, part in model.module.named_modules()
            if part._forward_hooks or part._forward_pre_hooks
        ]

    # The whole way.

    def test_a_store_holds_the_same_numbers(self, subject: Subject, tmp_path: Any) -> None:
        sites = ["resid_pre", "resid_post"]
        store = capture(subject.model, PROMPTS, sites=sites, at="last", to=tmp_path / "store", progress=False)
        residuals, _ = subject.own(subject.inputs)
        row_of = {prompt.id: row for row, prompt in enumerate(PROMPTS)}
        rows = [row_of[identifier] for identifier in store.prompt_ids]
        last = torch.tensor([LETTERS[row].places("last")[0] for row in rows])
        assert sorted(rows) == [0, 1, 2, 3] and store.positions.tolist() == last.tolist()
        for layer, point in PLACES:
            found = torch.from_numpy(store.values(str(Site(layer, point))))
            assert off(found, residuals[layer, point][rows, last]) < TOLERANCE, (layer, point)

    def test_the_doctor_finds_nothing(self, subject: Subject) -> None:
        assert subject.model.checkup.passed, str(subject.model.checkup)
