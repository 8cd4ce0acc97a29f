"""Prompts with pictures, family by family: real processors offline from a folder, and batches that equal single
prompts."""

import pytest
import torch
from own_hooks import everything
from seeing import FAMILIES, Seen, far, paint

from hooks.prompt import Prompt, PromptError
from hooks.site import Site

# float32 sums in another order where a row is padded; the worst of the families was 2e-6.
CLOSE = 1e-5
EMBEDDING = Site(0, "resid_pre")


@pytest.fixture(scope="module", params=list(FAMILIES))
def seen(request, tmp_path_factory) -> Seen:
    return Seen(request.param, tmp_path_factory.mktemp(request.param))


def test_pitfall_15_a_picture_enters_where_the_config_says(seen):
    """Proof without token ids: other pixels of the same size change the stream at the image positions and nowhere else
    (nowhere at all where pictures enter by cross-attention), and the logits."""
    prompt = seen.prompt("p", "a ", "square", "what")
    one = seen.model.encode([prompt])
    first = seen.model.run(one, {EMBEDDING: everything})
    kept = seen.pictures["square"].read_bytes()
    try:
        paint(seen.pictures["square"], (32, 32), seed=77)
        other = seen.model.run(seen.model.encode([prompt]), {EMBEDDING: everything})
    finally:
        seen.pictures["square"].write_bytes(kept)
    moved = (first.kept[EMBEDDING] != other.kept[EMBEDDING]).any(dim=-1)
    still = one.tokens.is_image & ~moved
    if seen.family in ("llava_next", "llava_onevision"):  # a learned vector ends each line of patches
        newline = seen.model.module.model.image_newline
        assert still.any() and (first.kept[EMBEDDING][still] == newline).all()
        still &= False
    assert not still.any() and not (moved & ~one.tokens.is_image).any()
    assert bool(moved.any()) == (seen.family != "mllama")
    assert far(first.logits, other.logits) > 1e-3
    behind = one.tokens.mask("text_after_image")[0].nonzero().flatten().tolist()
    assert behind and behind[-1] == len(one.encoded[0]) - 1, "what follows the picture, up to the end"


def test_pitfall_15_a_batch_equals_its_prompts_alone(seen):
    """Rows with one image, two, none; of other resolutions and numbers of tiles."""
    prompts = seen.prompts()
    keep = dict.fromkeys(seen.sites(), everything)
    together = seen.model.run(seen.model.encode(prompts), keep)
    for row, prompt in enumerate(prompts):
        batch = seen.model.encode([prompt])
        alone, length = seen.model.run(batch, keep), len(batch.encoded[0])
        assert far(together.logits[row], alone.logits[0]) < CLOSE, prompt.id
        for site in keep:
            assert far(together.kept[site][row, :length], alone.kept[site][0]) < CLOSE, (prompt.id, site)


def test_a_batch_is_what_the_processor_makes_of_the_prompts_together(seen):
    """The processor's own padding, in one call for all prompts, is the oracle for ours."""
    encoder = seen.model.encoder
    prompts = [prompt for prompt in seen.prompts() if prompt.images]
    bare = [seen.prompt(p.id, *_parts(seen, p)) for p in prompts]
    processor = encoder.processor
    processor.tokenizer.padding_side = "right"
    from hooks.pictures import pictures_of

    theirs = processor(
        text=[encoder.rendered(prompt) for prompt in bare],
        images=[pictures_of(prompt) for prompt in bare],
        padding=True,
        text_kwargs={"padding_side": "right"},
        add_special_tokens=False,
        return_tensors="pt",
    )
    ours = encoder(bare).inputs
    assert set(ours) == set(theirs) - {"labels"}
    for name, value in ours.items():
        expected = theirs[name]
        if name == "cross_attention_mask":  # theirs goes on over the pads, which nothing reads
            value, expected = (one * ours["attention_mask"][..., None, None] for one in (value, expected))
        assert torch.equal(value, expected.to(value.dtype)), name


def _parts(seen, prompt):
    if prompt.text is not None:
        names = iter([path.stem for path in prompt.pictures])
        pieces = prompt.text.split("<image>")
        return [part for piece in pieces for part in (piece, next(names, "")) if part]
    return [part if isinstance(part, str) else part.stem for part in prompt.messages[0].parts]


def test_cached_generation_equals_full_forwards(seen):
    """Greedy, rows padded left, with the KV cache; against one full forward a token, each prompt alone."""
    prompts = seen.prompts()
    written = seen.model.generate(seen.model.encode(prompts), max_new_tokens=4).token_ids
    for row, prompt in enumerate(prompts):
        start, ids = seen.model.encoder.encode(prompt).prompt_only(), []
        while len(ids) < 4 and not (ids and ids[-1] in seen.model.stop_ids):
            logits = seen.model.run(seen.model.encoder.collate([start.extended(ids)])).logits
            ids.append(int(logits[0].argmax()))
        assert ids == written[row], prompt.id


def test_a_response_is_read_as_generation_would_read_it(seen):
    """A response given in the prompt sees and is seen as tokens that were generated: the prompt's residuals do not
    change by it (PaliGemma reads its prefix both ways, so there this is a matter of token types)."""
    last = Site(seen.model.n_layers - 1)
    bare = seen.model.encode([seen.prompt("p", "square", "what")])
    full = seen.model.encode([seen.prompt("p", "square", "what", response="a dog")])
    p = bare.encoded[0].prompt_length
    without, within = (seen.model.run(batch, {last: everything}).kept[last][0, :p] for batch in (bare, full))
    assert far(within, without) < CLOSE
    assert len(full.encoded[0]) > p, "the meta-test: there is a response"


def test_the_order_of_several_pictures_counts(seen):
    one, two = (
        seen.model.run(seen.model.encode([seen.prompt("p", *order, "?")])).logits
        for order in (("square", "and ", "wide"), ("wide", "and ", "square"))
    )
    assert far(one, two) > 1e-3


def test_placeholders_without_pictures_are_refused(seen):
    placeholder = seen.model.encoder.processor.image_token
    with pytest.raises(PromptError, match="'p' has 0 images and 1 times the placeholder"):
        seen.model.encode([seen.prompt("p", f"see {placeholder}")])
    with pytest.raises(PromptError, match="'p' has 1 images and 2 times the placeholder"):
        seen.model.encode([seen.prompt("p", "square", f"see {placeholder}")])


def test_rows_that_may_not_share_a_batch_are_refused(seen):
    one, two = seen.prompt("one", "square", "what"), seen.prompt("two", "square", "or", "wide")
    kinds = {seen.model.encoder.batch_kind(prompt) for prompt in (one, two)}
    if seen.family != "mllama":
        assert kinds == {0} and len(seen.model.encode([one, two])) == 2
        return
    assert kinds == {1, 2} and seen.model.encoder.batch_kind(seen.prompt("none", "what")) == 0
    with pytest.raises(PromptError, match="one batch has prompts with 1 and 2 images: expected the same number"):
        seen.model.encode([one, two])


def test_pitfall_09_one_bos_where_tokenizer_and_processor_both_write_it(tmp_path):
    """Mllama's processor puts a BOS in front of raw text, and so may its tokenizer."""
    from tokenizers.processors import TemplateProcessing

    mllama = Seen("mllama", tmp_path)
    encoder = mllama.model.encoder
    bos = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    encoder.processor.tokenizer._tokenizer.post_processor = bos
    ids = encoder.encode(Prompt("p", text="see <img>", pictures=(mllama.pictures["square"],))).input_ids.tolist()
    assert ids[0] == 2 and ids.count(2) == 1
    with pytest.raises(PromptError, match="begins with two BOS tokens"):
        encoder.encode(Prompt("p", text="<bos>see <img>", pictures=(mllama.pictures["square"],)))
