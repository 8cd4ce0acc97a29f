"""Image features are computed once for each distinct image, reused, and never where a number could change."""

import functools
import gc
import weakref

import pytest
import torch
from own_hooks import everything
from seeing import FAMILIES, Seen, far
from transformers.modeling_outputs import BaseModelOutput

from hooks.site import Site

# What a tower gives for one image alone and in a batch differs by the order of float32 sums; worst seen: 1e-6.
CLOSE = 1e-5
PLAIN = {"mllama": "the model has no get_image_features"}
# Where an image's tiles cannot be told from its neighbour's, all images of a prompt are one piece.
BY_PROMPT = ("llava_onevision", "idefics3", "smolvlm", "internvl")


@pytest.fixture(scope="module", params=list(FAMILIES))
def seen(request, tmp_path_factory) -> Seen:
    return Seen(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> Seen:
    return Seen("gemma3", tmp_path_factory.mktemp("gemma3"))


class Runs:
    """Counts the pictures, tiles or patches that pass the tower's first block, without a hook."""

    def __init__(self, seen: Seen) -> None:
        block, self.read = seen.tower[0], []
        forward = type(block).forward

        def counting(*args, **kwargs):
            stream = args[0] if args else next(iter(kwargs.values()))  # older versions call it hidden_state
            self.read.append(stream.shape[:-1].numel())
            return forward(block, *args, **kwargs)

        self._block, block.forward = block, counting

    def total(self) -> int:
        return sum(self.read)

    def close(self) -> None:
        del self._block.forward


@pytest.fixture
def runs(seen):
    seen.model.features.clear()
    counter = Runs(seen)
    yield counter
    counter.close()


def alone(seen, prompt):
    """The logits of the prompt's next token: the module called by hand, its head on the last column."""
    batch = seen.model.encode([prompt])
    with torch.no_grad():
        return seen.model.module(**batch.inputs, use_cache=False, logits_to_keep=batch.last_index).logits[0, 0]


def test_the_tower_runs_once_for_each_distinct_image(seen, runs):
    one, other = seen.prompt("one", "square", "what"), seen.prompt("other", "see ", "tall")
    seen.model.run(seen.model.encode([one]))
    each = [runs.total()]
    seen.model.run(seen.model.encode([other]))
    each.append(runs.total() - each[0])
    seen.model.features.clear()
    runs.read.clear()
    batch = seen.model.encode([one, other]).rows([0, 1, 0, 0, 1])
    grid = seen.model.run(batch)
    if seen.family in PLAIN:
        assert runs.total() > sum(each) and seen.model.features.plain_because == PLAIN[seen.family]
        return
    assert runs.total() == sum(each), "five rows, two images"
    again = seen.model.run(batch)
    seen.model.generate(batch, max_new_tokens=2)
    same_image = seen.prompt("more", "and ", "square", "in this?")
    asked = seen.model.run(seen.model.encode([same_image]))
    assert runs.total() == sum(each), "nothing in later forwards, whatever the text"
    assert seen.model.features.plain_because is None
    assert torch.equal(grid.logits, again.logits)
    assert torch.equal(asked.logits[0], alone(seen, same_image)), "features of one image alone: bit for bit"
    for row, prompt in enumerate([one, other, one, one, other]):
        assert far(grid.logits[row], alone(seen, prompt)) < CLOSE


def test_reuse_changes_no_number(seen):
    """All sites of a mixed batch, against the module called by hand on the whole batch."""
    batch = seen.model.encode(seen.prompts())
    kept = seen.model.run(batch, dict.fromkeys(seen.sites(), everything)).kept
    real, read = batch.tokens.position >= 0, {}
    blocks = seen.model.towers["language"].blocks
    handles = [
        block.register_forward_pre_hook(
            lambda m, args, kwargs, layer=layer: read.__setitem__(layer, args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        for layer, block in enumerate(blocks)
    ]
    with torch.no_grad():
        seen.model.module(**batch.inputs)
    [handle.remove() for handle in handles]
    assert len(read) == len(blocks)
    for layer, stream in read.items():
        assert far(kept[Site(layer, "resid_pre")][real], stream[real]) < CLOSE


def test_images_of_a_prompt_are_shared_one_by_one_where_they_can_be_told_apart(seen, runs):
    if seen.family in PLAIN:
        pytest.skip("this family runs plainly; test_the_tower_runs_once_for_each_distinct_image says so")
    seen.model.run(seen.model.encode([seen.prompt("one", "square", "what")]))
    seen.model.run(seen.model.encode([seen.prompt("two", "tall", "what")]))
    before = runs.total()
    both = seen.prompt("both", "square", "or ", "tall", "?")
    logits = seen.model.run(seen.model.encode([both])).logits[0]
    assert (runs.total() == before) == (seen.family not in BY_PROMPT)
    assert far(logits, alone(seen, both)) < CLOSE


def test_the_model_is_left_as_it_was_whatever_happens(seen):
    modules = list(seen.model.module.modules())

    def state():
        return [("get_image_features" in vars(part), part) for part in modules]

    before, batch = state(), seen.model.encode([seen.prompt("p", "square", "what")])

    def breaks(resid, where):
        raise ArithmeticError("inside")

    with pytest.raises(ArithmeticError):
        seen.model.run(batch, None, {Site(1): [breaks]})
    seen.model.run(batch, {Site(0): everything}, logits=False)
    assert state() == before and not any(wrapped for wrapped, _ in before)


# What must not be reused.


def test_a_site_in_the_tower_makes_it_run(gemma):
    batch, site = gemma.model.encode([gemma.prompt("p", "square", "what")]), Site(0, tower="vision")
    plain = gemma.model.run(batch).logits
    kept = gemma.model.run(batch, {site: everything}).kept[site]
    assert len(kept) == 1 and "is hooked" in gemma.model.features.plain_because
    edited = gemma.model.run(batch, None, {site: [lambda resid, where: resid + torch.arange(24.0)]}).logits
    assert far(edited, plain) > 1e-3
    assert torch.equal(gemma.model.run(batch).logits, plain), "and what the edit gave is not kept"
    assert gemma.model.features.plain_because is None


def test_hooks_of_others_in_the_tower_are_respected(gemma):
    batch = gemma.model.encode([gemma.prompt("p", "square", "what")])
    plain = gemma.model.run(batch).logits
    handle = gemma.tower[1].register_forward_hook(lambda module, args, output: output + 1)
    try:
        assert not torch.equal(gemma.model.run(batch).logits, plain)
    finally:
        handle.remove()
    assert torch.equal(gemma.model.run(batch).logits, plain)


@pytest.mark.parametrize(
    "where", ["model.vision_tower.encoder.layers.0.mlp.fc1", "model.multi_modal_projector.mm_soft_emb_norm"]
)
def test_changed_weights_are_seen(gemma, where):
    batch = gemma.model.encode([gemma.prompt("p", "square", "what")])
    plain, weight = gemma.model.run(batch).logits, gemma.model.module.get_submodule(where).weight
    with torch.no_grad():
        weight.add_(0.5)
    try:
        assert not torch.equal(gemma.model.run(batch).logits, plain)
    finally:
        with torch.no_grad():
            weight.sub_(0.5)


@pytest.mark.parametrize(("targets", "shared"), [("q_proj", True), ("fc1", False)])
def test_variants_share_features_unless_an_adapter_acts_on_the_tower(gemma, tmp_path, targets, shared):
    from peft import LoraConfig, get_peft_model

    from hooks.load import load_model

    inside = r".*language_model.*q_proj" if shared else r".*vision_tower.*fc1"
    torch.manual_seed(3)
    peft = get_peft_model(FAMILIES["gemma3"]().model, LoraConfig(r=2, target_modules=inside))
    for name, weight in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    model = load_model(peft, gemma.model.tokenizer, gemma.model.encoder.processor, check=False)
    batch = model.encode([gemma.prompt("p", "square", "what")])
    model.features.clear()
    logits = {}
    for name in ("base", "default", "base", "default"):
        now = model.variant(name).run(batch).logits
        assert torch.equal(now, logits.setdefault(name, now))
    assert not torch.equal(logits["base"], logits["default"])
    assert len(model.features._kept) == (1 if shared else 2)


def test_gradients_pass_the_tower(gemma):
    """Outside inference mode nothing is reused: what was computed without a graph has no gradient."""
    batch = gemma.model.encode([gemma.prompt("p", "square", "what")])
    gemma.model.run(batch)
    with gemma.model.features.during(batch):
        gemma.model.module(**batch.inputs).logits.sum().backward()
    weight = gemma.tower[0].mlp.fc1.weight
    assert weight.grad is not None and weight.grad.any()
    gemma.model.module.zero_grad()


# How much is kept.


def test_the_longest_unused_features_go_first(gemma):
    features, prompts = gemma.model.features, [gemma.prompt(name, name, "what") for name in ("square", "wide", "tall")]
    features.clear()
    gemma.model.run(gemma.model.encode(prompts[:1]))
    size, limit = features.bytes, features.limit
    assert size == 4 * 32 * 4, "4 tokens of width 32 in float32"
    features.limit = 2 * size
    try:
        for prompt in (*prompts[:2], prompts[0], prompts[2]):
            gemma.model.run(gemma.model.encode([prompt]))
            assert features.bytes <= 2 * size
        before = features.computed
        gemma.model.run(gemma.model.encode([prompts[0], prompts[2]]))
        assert features.computed == before, "used last"
        gemma.model.run(gemma.model.encode([prompts[1]]))
        assert features.computed == before + 1, "gone"
        features.limit = 0
        gemma.model.run(gemma.model.encode(prompts))
        assert features.bytes == 0
    finally:
        features.limit = limit


def test_what_an_output_was_given_beside_its_own_fields_is_kept(gemma, monkeypatch):
    """LLaVA's with a Pixtral tower in transformers 5.17: the class has no field for what the language model reads."""
    model, own = gemma.model, gemma.model.features._owner.get_image_features

    @functools.wraps(own)
    def features(*args, **kwargs):
        out = own(*args, **kwargs)
        given = BaseModelOutput(out.last_hidden_state)
        given.pooler_output = out.pooler_output
        return given

    batch = model.encode([gemma.prompt(name, name, "what") for name in ("square", "wide")])
    plain = model.run(batch).logits
    model.features.clear()
    monkeypatch.setattr(model.features._owner, "get_image_features", features, raising=False)
    again = [model.run(batch).logits for _ in range(2)]
    assert model.features.plain_because is None and model.features.bytes > 0
    assert all(torch.equal(logits, plain) for logits in again)


def test_no_pixels_are_kept_alive(gemma):
    batch = gemma.model.encode([gemma.prompt("p", "square", "what")])
    gemma.model.run(batch)
    pixels = weakref.ref(batch.encoded[0].images["pixel_values"])
    del batch
    gc.collect()
    assert pixels() is None
