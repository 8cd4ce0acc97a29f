"""Points of a forward against loops over its positions."""

import numpy as np
import pytest
import torch
from made_forwards import tokens_of

from hooks.points import ieee_products, points_of, summed
from hooks.positions import Tokens

LENGTHS, GROUPS = [4, 1, 6, 3], [1, 0, 0, 1]


def looped(resid, tokens, scope, mean):
    """{prompt: float64 sum over its points} and {prompt: number of points}, by hand."""
    sums, counts = {}, {}
    for row in range(len(resid)):
        inside = [
            p
            for p in range(resid.shape[1])
            if tokens.position[row, p] >= 0
            and (scope != "all" or tokens.patches or p > 0)
            and (scope != "last" or p == tokens.prompt_length[row] - 1)
        ]
        if not inside:
            continue
        prompt = row if tokens.owner is None else int(tokens.owner[row])
        rows = resid[row, inside].double()
        rows = rows.mean(dim=0, keepdim=True) if mean else rows
        sums[prompt] = sums.get(prompt, 0) + rows.sum(dim=0)
        counts[prompt] = counts.get(prompt, 0) + len(rows)
    return sums, counts


@pytest.mark.parametrize("mean", [False, True], ids=["positions", "means"])
@pytest.mark.parametrize("scope", ["last", "prompt", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sums_by_prompt_are_those_of_a_loop(scope, mean, dtype):
    tokens, resid = tokens_of(LENGTHS), torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    points = points_of(scope, tokens, GROUPS, mean=mean)
    sums, counts = looped(resid, tokens, scope, mean)
    rows = points.of(resid)
    assert len(points) == len(rows) == sum(counts.values())
    assert dict(zip(points.prompts.tolist(), points.counts.tolist(), strict=True)) == counts
    by_prompt = points.by_prompt(rows)
    assert by_prompt.dtype == torch.float32
    for place, prompt in enumerate(points.prompts.tolist()):
        assert torch.allclose(by_prompt[place].double(), sums[prompt], rtol=1e-6, atol=1e-6)


def test_position_0_is_left_out_under_all_and_only_there():
    tokens = tokens_of(LENGTHS)
    assert len(points_of("all", tokens, GROUPS)) == sum(LENGTHS) - 4
    assert len(points_of("prompt", tokens, GROUPS)) == sum(LENGTHS)
    assert points_of("all", tokens, GROUPS).prompts.tolist() == [2, 0, 3], "prompt 1 is one token, at position 0"


def test_prompts_of_one_group_lie_together():
    points = points_of("prompt", tokens_of(LENGTHS), GROUPS)
    assert points.prompts.tolist() == [1, 2, 0, 3]
    assert [(run.group, run.points, run.prompts) for run in points.runs] == [
        (0, slice(0, 7), slice(0, 2)),
        (1, slice(7, 14), slice(2, 4)),
    ]
    assert points.group_of.tolist() == [0] * 7 + [1] * 7
    resid = torch.arange(24.0).reshape(4, 6, 1)
    assert points.of(resid)[:, 0].tolist() == [6, *range(12, 18), *range(4), *range(18, 21)]


@pytest.mark.parametrize("mean", [False, True], ids=["positions", "means"])
def test_pictures_belong_to_their_prompts(mean):
    """Three pictures of prompts 2, 0 and 2; position 0 is a patch as any other."""
    tokens = Tokens.of_patches(3, 4, torch.device("cpu"), [2, 0, 2])
    points = points_of("all", tokens, [5, 5, 4], mean=mean)
    resid = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    sums, counts = looped(resid, tokens, "all", mean)
    assert points.prompts.tolist() == [2, 0] and points.counts.tolist() == [counts[2], counts[0]]
    assert counts == ({2: 2, 0: 1} if mean else {2: 8, 0: 4})
    for place, prompt in enumerate((2, 0)):
        assert torch.allclose(points.by_prompt(points.of(resid))[place].double(), sums[prompt], atol=1e-5)


def test_a_scope_that_no_prompt_has_gives_no_points():
    assert points_of("image", tokens_of(LENGTHS), GROUPS) is None


def test_streams_with_positions_first_are_read_as_they_lie():
    tokens, resid = tokens_of(LENGTHS), torch.randn(6, 4, 5).transpose(0, 1)
    points = points_of("prompt", tokens, GROUPS)
    assert torch.equal(points.of(resid), points.of(resid.contiguous()))


def test_products_are_full_float32_whatever_the_process_allows(monkeypatch):
    """And its own setting is put back, also behind an error."""
    kinds = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        allowed = [kind.fp32_precision for kind in kinds]
        assert allowed == ["tf32", "bf16"], "the meta-test"
        with pytest.raises(KeyError), ieee_products():
            assert [kind.fp32_precision for kind in kinds] == ["ieee", "ieee"]
            raise KeyError
        assert [kind.fp32_precision for kind in kinds] == allowed
        weight, values = torch.rand(300, 400) > 0.5, torch.randn(400, 500)
        exact = weight.double() @ values.double()
        assert (summed(weight.float(), values) - exact).abs().max() < 1e-5 * exact.abs().max()
    finally:
        torch.set_float32_matmul_precision(before)


def test_counts_are_exact_integers():
    points = points_of("all", tokens_of([3000, 2]), [0, 1])
    assert points.counts.dtype == np.int64 and points.counts.tolist() == [2999, 1]
