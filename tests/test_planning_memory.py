"""The memory of a plan against torch's own record of allocations on the CPU: within 20 %, stated before the run."""

from __future__ import annotations

import pytest
import tiny_models
import torch
from conftest import chat
from torch.profiler import ProfilerActivity, profile
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    SiglipVisionConfig,
)

from hooks.load import load_model
from hooks.sampling import SeededSampling
from workbench.interventions.readout import Choice
from workbench.planning.dry_run import dry_run
from workbench.planning.memory import Sizes, peak_of, phases, weight_bytes

WITHIN = 0.2
TOKENIZER = tiny_models.byte_tokenizer()


def llama(width=64, inner=192, vocabulary=None):
    config = LlamaConfig(
        vocab_size=vocabulary or len(TOKENIZER),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    return LlamaForCausalLM(config).eval(), None


def gemma3(side=32):
    text = Gemma3TextConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )
    vision = SiglipVisionConfig(
        hidden_size=48,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=side,
        patch_size=4,
        vision_use_head=False,
    )
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        boi_token_index=5,
        eoi_token_index=6,
        image_token_index=7,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    pictures = tiny_models.Gemma3ImageProcessorPil(size={"height": side, "width": side})
    processor = Gemma3Processor(pictures, TOKENIZER, image_seq_length=4, chat_template=tiny_models.TEMPLATE)
    model = Gemma3ForConditionalGeneration(config).eval()
    with torch.no_grad():  # transformers makes it zero: a model that sees nothing, which takes no pictures
        model.model.multi_modal_projector.mm_input_projection_weight.normal_(0, 0.3)
    return model, processor


def allocated(run) -> int:
    """The most bytes that torch held at once while this ran, beside what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


CASES = {
    "mlp": (lambda: llama(inner=512), 6, 200, 0, False),
    "attention": (lambda: llama(inner=64), 6, 200, 0, False),
    "padded": (llama, 6, 200, 7, False),
    "long": (llama, 2, 700, 90, False),
    "vocabulary": (lambda: llama(width=32, inner=48, vocabulary=20_000), 32, 10, 0, False),
    "sliding": (gemma3, 6, 200, 5, False),
    "pictures": (gemma3, 6, 200, 5, True),
    "a large picture": (lambda: gemma3(side=256), 2, 10, 0, True),
}


@pytest.mark.parametrize("case", CASES)
def test_reading_and_answering_take_what_was_estimated(case, picture):
    """The tensors beside the weights; pixels are made before the forward, so that a CPU's record has them not."""
    (module, processor), (_, rows, length, less, shows) = CASES[case][0](), CASES[case]
    model = load_model(module, TOKENIZER, processor)
    shown = (picture,) if shows else ()
    batch = model.encode([chat(str(n), *shown, "w" * (length - less * n)) for n in range(rows)])
    plan = dry_run(module.config, tokenizer=TOKENIZER, processor=processor, device="cpu", dtype="float32").model
    sizes = Sizes.of(plan)

    def expected(call):
        features = sum(plan.pictures.values()) * sizes.d * sizes.b
        return max(one.peak for one in phases(sizes, call, 0, features)) - call.images * sizes.pixels * sizes.b

    choice = Choice(torch.zeros(rows, dtype=torch.long), torch.ones(rows, dtype=torch.long))
    model.run(batch)  # the first forward of a model may make what stays
    model.features.clear()
    plan.note("read", batch, logits=rows)
    read = allocated(lambda: choice.read(model.run(batch).logits))
    assert expected(plan.calls[-1]) == pytest.approx(read, rel=WITHIN)
    for copies, sampling in ((3, {"temperature": 0.0}), (7, {}), (9, {"top_p": 0.9})):
        model.features.clear()
        plan.generate(batch.padded("left"), max_new_tokens=6, copies=copies)
        draw = SeededSampling(list(range(rows)), max_new_tokens=6, **sampling)
        wrote = allocated(lambda draw=draw: model.generate(batch, max_new_tokens=6, logits_processor=[draw]))
        assert expected(plan.calls[-1]) == pytest.approx(wrote, rel=WITHIN), sampling


def test_weights_are_exact_and_tied_ones_count_once():
    for module, processor in (llama(), gemma3()):
        plan = dry_run(module.config, tokenizer=TOKENIZER, processor=processor, dtype="float32", adapter_bytes=1000)
        storages = {one.data_ptr(): one.nbytes for one in (*module.parameters(), *module.buffers())}
        assert weight_bytes(plan.model.module) == sum(storages.values())
        assert all(one.device.type == "meta" for one in plan.model.module.parameters())
        nothing = peak_of(plan.model, [], adapter_bytes=1000)
        assert nothing.peak == nothing.weights == sum(storages.values()) + 1000
    half = dry_run(module.config, tokenizer=TOKENIZER, processor=processor, dtype="bfloat16")
    assert weight_bytes(half.model.module) < 0.6 * sum(storages.values())


def test_a_longer_batch_a_longer_answer_and_more_pictures_take_more(picture):
    module, processor = gemma3()
    plan = dry_run(module.config, tokenizer=TOKENIZER, processor=processor, dtype="bfloat16", device="cuda")
    texts = [chat(str(n), "w" * 50) for n in range(8)]
    shown = [chat(f"i{n}", picture, "w" * 50) for n in range(8)]
    peaks = [plan.capture(texts, max_tokens=tokens).memory.peak for tokens in (70, 600)]
    peaks += [plan.sample_answers(texts, max_new_tokens=new).memory.peak for new in (50, 500)]
    assert peaks == sorted(peaks) and len(set(peaks)) == 4
    assert plan.sample_answers(texts, max_new_tokens=500).memory.cache > plan.capture(texts).memory.cache == 0
    looks = plan.capture(shown, sites="vision.resid_post", at={"vision": "image"}).memory
    assert looks.kept > plan.capture(shown).memory.kept and "weights" in str(looks)
