"""Projections of tokens: against whole captures and planted truth, their texts, pictures, and what JSON may say."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from conftest import chat
from PIL import Image
from workbench_samples import random_directions

from hooks.pool import Pool
from hooks.prompt import read_prompts
from hooks.site import Site
from workbench.behaviour.projected import Projected, colour_scale
from workbench.behaviour.token_projections import token_projections
from workbench.capturing import capture
from workbench.interventions.ablate import Ablate
from workbench.interventions.steer import Steer
from workbench.subspace.means import difference_of_means


def coordinate(model, prompt, v, layer):
    """The naive twin: the whole residual of one prompt alone, then the vector."""
    batch = model.encode([prompt])
    kept = model.run(batch, keep={Site(layer): Pool("all")}).kept[Site(layer)].double().numpy()
    return (kept @ v[layer].unit[0] - v[layer].offset[0]) / v[layer].norm[0]


class TestValues:
    def test_they_are_those_of_the_whole_residual(self, scene):
        """Rows of several lengths, with responses, prefills and pictures, in one call."""
        model, prompts = scene
        v = random_directions(model)
        for prompt, found in zip(prompts, token_projections(model, prompts, v, 1), strict=True):
            assert found.prompt == prompt.id and found.site == str(Site(1))
            np.testing.assert_allclose(found.values, coordinate(model, prompt, v, 1), atol=2e-5)

    def test_zero_is_the_negative_mean_and_one_the_positive(self, tuned_world, world, tmp_path):
        """At the place where the direction was fitted; what the fine-tune adds there is 1 on average, too."""
        prompts = read_prompts(world.prompts)[:12]
        rows = capture(tuned_world, prompts, at="last", variants=("base", "tuned"), to=tmp_path / "s", progress=False)
        v = difference_of_means(rows.where(variant="tuned"), rows.where(variant="base"))
        last = {}
        for name, options in (("base", {}), ("tuned", {}), ("moved", {"minus": "base"})):
            model = tuned_world.variant("base" if name == "base" else "tuned")
            last[name] = np.mean([one.values[-1] for one in token_projections(model, prompts, v, 3, **options)])
        assert last == pytest.approx({"base": 0.0, "tuned": 1.0, "moved": 1.0}, abs=1e-4)

    def test_they_are_read_after_the_edits(self, llama, prompts):
        v = random_directions(llama)
        ablated = token_projections(llama, prompts, v, 2, interventions=[Ablate(v, 2, to="mean")])
        assert max(np.abs(one.values).max() for one in ablated) < 1e-4
        plain = token_projections(llama, prompts, v, 2)
        steered = token_projections(llama, prompts, v, 2, interventions=[Steer(v, 2, 1.5, at="all")])
        for one, other in zip(steered, plain, strict=True):
            np.testing.assert_allclose(one.values - other.values, 1.5, atol=1e-4)

    def test_without_an_origin_zero_is_the_residuals_own(self, llama, prompts):
        v = random_directions(llama)
        bare = token_projections(llama, prompts[:1], v.replace(origin=None), 1)[0]
        whole = token_projections(llama, prompts[:1], v, 1)[0]
        np.testing.assert_allclose(bare.values - whole.values, v[1].offset[0] / v[1].norm[0], atol=1e-5)
        assert "own zero" in bare.scale and "negative class" in whole.scale

    def test_what_does_not_exist_is_refused(self, llama, prompts):
        v = random_directions(llama)
        with pytest.raises(ValueError, match="expected one of"):
            token_projections(llama, prompts, v[1], 2)
        still = v.replace(unit=v.unit * 0, norm=v.norm * 0)
        with pytest.raises(ValueError, match="nothing moved"):
            token_projections(llama, prompts, still, 1)


class TestTexts:
    def test_the_tokens_say_the_whole_text(self, any_model, prompts):
        for one, prompt in zip(
            token_projections(any_model, prompts, random_directions(any_model), 0), prompts, strict=True
        ):
            ids = any_model.encoder.encode(prompt).input_ids
            assert "".join(one.tokens) == any_model.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
            assert len(one.tokens) == len(one.values) == len(one.parts) == len(ids)

    def test_parts_and_answers(self, tuned_world):
        asked = chat("a", "cat its sound")
        (one,) = token_projections(tuned_world, [asked], random_directions(tuned_world), 0, answers={"a": "it is woof"})
        parts = dict.fromkeys(one.parts)
        assert list(parts) == ["template", "prompt", "response"]
        said = {part: "".join(t for t, p in zip(one.tokens, one.parts, strict=True) if p == part) for part in parts}
        assert said["response"].split() == ["it", "is", "woof"]
        assert "cat its sound" in said["prompt"] and "<model>" in said["template"]


class TestPictures:
    def test_the_patches_are_the_image_tokens_and_the_picture_is_what_the_model_saw(self, tuned_world, world):
        prompt = next(one for one in read_prompts(world.questions) if one.images)
        (one,) = token_projections(tuned_world, [prompt], random_directions(tuned_world), 0)
        (seen,) = one.pictures
        assert seen.columns == 2 and [i for i, part in enumerate(one.parts) if part == "image"] == list(
            range(seen.start, seen.start + seen.count)
        )
        shown = Image.open(io.BytesIO(base64.b64decode(seen.uri.partition(",")[2])))
        original = Image.open(prompt.images[0]).convert("RGB").resize(shown.size)
        assert np.abs(np.asarray(shown, int) - np.asarray(original, int)).max() <= 2

    def test_two_pictures_of_one_prompt_have_their_own_patches(self, gemma3, picture):
        prompts = [chat("apart", picture, " or ", picture, "?"), chat("none", "no picture")]
        found = token_projections(gemma3, prompts, random_directions(gemma3), 0)
        first, second = found[0].pictures
        assert first.count == second.count and first.start + first.count <= second.start
        assert not found[1].pictures


class TestRecords:
    @pytest.fixture
    def record(self, llama, prompts):
        return token_projections(llama, prompts[1:2], random_directions(llama), 1)[0].record()

    def test_there_and_back(self, record):
        again = Projected.of(json.loads(json.dumps(record)))
        assert again.record() == record

    @pytest.mark.parametrize(
        "change",
        [
            {"texts": ["a"]}, {"values": [1.0]}, {"values": None}, {"parts": 3}, {"site": None, "texts": None},
            {"pictures": [{"uri": "x"}]}, {"pictures": [{"uri": "", "start": -1, "count": 1, "columns": 1}]},
            {"pictures": [{"uri": "", "start": 0, "count": 10**9, "columns": 0}]},
            {"pictures": [{"uri": "", "start": 0, "count": 4, "columns": 3}]}, {"pictures": 1},
        ],
    )  # fmt: skip
    def test_all_else_is_refused(self, record, change):
        with pytest.raises(ValueError, match="expected"):
            Projected.of(record | change)

    def test_values_that_are_no_numbers_and_parts_that_nobody_knows(self, record):
        for name, value in (("values", float("nan")), ("parts", "nowhere")):
            with pytest.raises(ValueError, match="expected"):
                Projected.of(record | {name: [value] * len(record["texts"])})

    def test_the_scale_leaves_out_the_first_token_and_the_template(self, record):
        n = len(record["texts"])
        parts = ["prompt"] * (n - 1) + ["template"]
        one = Projected.of(record | {"values": [900.0] + [-2.0] * (n - 2) + [500.0], "parts": parts})
        assert colour_scale([one]) == 2.0
        assert colour_scale([]) == 1.0
