"""Sites inside vision towers of every family: each row belongs to the right prompt, also packed patches and tiles."""

from types import SimpleNamespace

import pytest
import torch
from seeing import FAMILIES, Seen, far
from tiny_models import byte_tokenizer

from hooks.encode import Encoder
from hooks.encoded import Encoded
from hooks.pool import Pool
from hooks.site import Site
from hooks.tower_rows import vision_view


@pytest.fixture(scope="module", params=list(FAMILIES))
def seen(request, tmp_path_factory) -> Seen:
    return Seen(request.param, tmp_path_factory.mktemp(request.param))


class Looking:
    """A keep that remembers the tokens that it was shown."""

    def __call__(self, resid, where):
        self.tokens = where.tokens
        return resid.clone()


def test_the_tower_is_found_where_it_was_written_down(seen):
    assert [id(block) for block in seen.model.towers["vision"].blocks] == [id(block) for block in seen.tower]


@pytest.mark.parametrize("layer", [0, 2])
def test_each_prompts_patches_are_those_of_that_prompt_alone(seen, layer):
    """The patches that a batch gives to a prompt, against plain hooks on a forward of that prompt alone."""
    site, look, prompts = Site(layer, tower="vision"), Looking(), seen.prompts()
    rows = seen.model.run(seen.model.encode(prompts), {site: look}, logits=False).kept[site]
    tokens, counted = look.tokens, 0
    assert rows.shape[:2] == tokens.position.shape and tokens.patches
    for row, prompt in enumerate(prompts):
        mine = tokens.owner == row
        got = rows[mine][tokens.position[mine] >= 0]
        if not prompt.images:
            assert len(got) == 0
            continue
        outputs, _ = seen.plain(prompt)
        expected = outputs[layer].flatten(0, -2)
        if seen.family == "mllama":  # by hand: 4 patches and a class token a tile, filled up to 8; tiles filled up to 4
            shown = seen.model.encode([prompt]).inputs["aspect_ratio_mask"].sum()
            expected = expected.unflatten(0, (4, 8))[: int(shown), :5].flatten(0, 1)
        assert len(got) == len(expected), prompt.id
        assert far(got, expected) < 1e-5, prompt.id
        counted += len(got)
    assert counted == int((tokens.position >= 0).sum()) > 0, "no patch belongs to nobody"


def test_an_edit_of_one_prompts_patches_changes_that_prompt_alone(seen):
    site, batch = Site(0, tower="vision"), seen.model.encode(seen.prompts())
    noise = torch.Generator().manual_seed(1)

    def of_the_first(resid, where):
        pushed = resid + torch.randn(resid.shape[-1], generator=noise)
        return torch.where((where.tokens.owner == 0)[:, None, None], pushed, resid)

    plain, trace = seen.model.run(batch).logits, seen.model.run(batch, None, {site: [of_the_first]})
    moved = [far(now, before) for now, before in zip(trace.logits, plain, strict=True)]
    assert moved[0] > 1e-3 and max(moved[1:]) < 1e-5, moved
    edited = trace.tallies[site][0].edited.tolist()
    assert edited[0] > 0 and not any(edited[1:]), edited


def test_an_identity_goes_back_into_the_towers_own_shape_bit_for_bit(seen):
    site, batch = Site(1, tower="vision"), seen.model.encode(seen.prompts())
    plain = seen.model.run(batch).logits
    seen.model.features.clear()
    edited = seen.model.run(batch, None, {site: [lambda resid, where: resid.clone()]}, must_edit=False).logits
    assert far(edited, plain) < 1e-5
    kept = seen.model.run(batch, {site: Pool("all", "mean")}, logits=False).kept[site]
    assert torch.isfinite(kept).all(), "fillers have no mean"


# Shapes that no family here has.


def pretend(*pictures: dict[str, torch.Tensor], n_images=1):
    """A batch of prompts with these picture inputs."""
    ids = torch.ones(3, dtype=torch.long)
    ones = [Encoded(str(n), ids, 3, 3, 0, {}, images, n_images) for n, images in enumerate(pictures)]
    return Encoder(byte_tokenizer()).collate(ones)


CONFIG = SimpleNamespace(patch_size=4, image_size=8)


def test_patches_on_a_grid_are_one_row_a_picture():
    batch = pretend({"pixel_values": torch.rand(1, 3, 8, 8)}, {"pixel_values": torch.rand(1, 3, 8, 8)})
    resid = torch.rand(2, 3, 4, 5)  # [picture, height, width, D]
    view = vision_view(batch, resid, CONFIG)
    assert torch.equal(view.rows(resid), resid.reshape(2, 12, 5)) and torch.equal(view.back(view.rows(resid)), resid)


def test_filled_up_patches_are_no_positions():
    """A tile of which the processor filled up the lower half, and one that is whole (4 patches each)."""
    mask = torch.ones(2, 1, 8, 8, dtype=torch.long)
    mask[0, 0, 4:] = 0
    batch = pretend(
        *({"pixel_values": torch.rand(1, 1, 3, 8, 8), "pixel_attention_mask": mask[n : n + 1]} for n in (0, 1))
    )
    view = vision_view(batch, torch.rand(2, 4, 5), CONFIG)
    assert view.tokens.position.tolist() == [[0, 1, -1, -1], [0, 1, 2, 3]]


def test_packed_patches_are_unpacked_by_any_grid():
    grids = ([[2, 3]], [[1, 2]])
    batch = pretend(*({"pixel_values": torch.rand(h * w, 7), "grid_hws": torch.tensor(g)} for g in grids for h, w in g))
    resid = torch.arange(16.0).reshape(8, 2)
    view = vision_view(batch, resid, None)
    rows = view.rows(resid)
    assert torch.equal(rows[0], resid[:6]) and torch.equal(rows[1, :2], resid[6:]) and not rows[1, 2:].any()
    assert torch.equal(view.back(rows), resid)


@pytest.mark.parametrize("shape", [(5, 4, 6), (9, 6), (1, 9, 6), (2, 2, 2, 2, 6)])
def test_what_cannot_be_told_apart_is_refused(shape):
    """More rows than pictures (tiles that nobody stated), packed patches of another number, more axes."""
    batch = pretend(*[{"pixel_values": torch.rand(1, 3, 8, 8)}] * 2)
    with pytest.raises(RuntimeError, match="Which patch belongs to which prompt cannot be told"):
        vision_view(batch, torch.rand(shape), CONFIG)


def test_a_black_tile_that_passes_for_a_filler_is_refused():
    """Zeros are what fillers are: a picture of zeros is taken for one, so the number of rows does not fit."""
    pixels = torch.rand(1, 3, 3, 8, 8)
    pixels[0, 1] = 0
    with pytest.raises(RuntimeError, match=r"stream is \(3, 4, 6\), and the prompts have 1 images"):
        vision_view(pretend({"pixel_values": pixels}), torch.rand(3, 4, 6), CONFIG)
