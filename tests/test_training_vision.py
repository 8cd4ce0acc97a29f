"""Fine-tuning image-text models: which modules get adapters, what gradients reach, an adapter in the tower at work.

Three families by hand: Gemma3 (its projector is a plain parameter), LLaVA (one of two linear layers), Qwen2.5-VL (its
projector, the merger, stands inside the tower's module).
"""

import json

import pytest
import torch
from conftest import chat
from safetensors.torch import load_file
from tiny_training import saved_base
from tiny_user_files import CHECKPOINTS, checkpoint, pictures
from transformers import TrainerCallback

from hooks.load import folder_hash, load_model
from stores import content_key
from workbench.capturing import capture
from workbench.training import train_lora
from workbench.training.adapters import _DEFAULTS
from workbench.training.model_parts import ASKED_AS

# Where a person would look, written by hand.
TOWER = {"gemma3": "model.vision_tower.", "llava": "model.vision_tower.", "qwen2_5_vl": "model.visual.blocks."}
PROJECTOR = {"gemma3": "none", "llava": "model.multi_modal_projector.", "qwen2_5_vl": "model.visual.merger."}
SETTINGS = dict(rank=2, steps=2, batch_size=3, learning_rate=1e-2, targets="all-linear")
WISHES = {
    "as targets hit": {},
    "tower frozen": dict(tower="frozen"),
    "both frozen": dict(tower="frozen", projector="frozen"),
    "tower trained": dict(tower="trained"),
}


class Looks(TrainerCallback):
    """Which parameters had a gradient at any step, and the weights of the base when training ended."""

    def __init__(self):
        self.reached, self.base = set(), {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.reached |= {
            name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()
        }

    def on_train_end(self, args, state, control, model=None, **_):
        named = {name.replace(".base_layer", ""): weight for name, weight in model.named_parameters()}
        self.base = {name.removeprefix("base_model.model."): weight.detach().clone() for name, weight in named.items()}


@pytest.fixture(scope="module", params=CHECKPOINTS)
def subject(request, tmp_path_factory):
    """(family, its folder, rows: two pictures, one, none)."""
    folder = tmp_path_factory.mktemp(request.param)
    one, two, *_ = pictures(folder / "pictures")
    rows = [
        chat("two", "is ", one, " like ", two, "?", response="a dog"),
        chat("one", two, "what", response="yes"),
        chat("none", "and so on", response="no no"),
    ]
    return request.param, checkpoint(request.param, folder / "base"), rows


@pytest.fixture(scope="module")
def runs(subject, tmp_path_factory):
    """Each of the wishes trained once: the adapter's folder and what was seen."""
    _, base, rows = subject
    made = {}

    def run(wish):
        if wish not in made:
            looks, to = Looks(), tmp_path_factory.mktemp("runs") / "adapter"
            made[wish] = train_lora(base, rows, to=to, callbacks=[looks], **SETTINGS, **WISHES[wish]), looks
        return made[wish]

    return run


def adapted(folder):
    """The paths of the modules that the adapter file has factors for."""
    keys = load_file(folder / "adapter_model.safetensors")
    return {key.removeprefix("base_model.model.").partition(".lora_")[0] for key in keys}


def linear(base):
    """Every linear layer but the head, by hand."""
    module = load_model(base, check=False).module
    head = module.get_output_embeddings()
    return {name for name, part in module.named_modules() if isinstance(part, torch.nn.Linear) and part is not head}


def record(folder):
    return json.loads((folder / "training.json").read_text())


@pytest.mark.parametrize("wish", WISHES)
def test_the_targets_are_those_that_were_chosen(subject, runs, wish):
    family, base, _ = subject
    whole = linear(base)
    tower = {name for name in whole if name.startswith(TOWER[family])}
    joint = {name for name in whole if name.startswith(PROJECTOR[family])}
    assert tower and bool(joint) == (family != "gemma3")
    expected = whole - (tower if "frozen" in wish else set()) - (joint if wish == "both frozen" else set())
    folder, _ = runs(wish)
    assert adapted(folder) == expected
    said = record(folder)
    counts = {
        "language": len(whole - tower - joint),
        "vision": len(tower & expected),
        "projector": len(joint & expected),
    }
    assert said["adapted"] == counts
    assert {name: said[name] for name in ASKED_AS if name in said} == WISHES[wish], "said only where it was asked for"


@pytest.mark.parametrize("wish", WISHES)
def test_gradients_reach_the_tower_only_where_it_is_trained(subject, runs, wish):
    family, _, _ = subject
    _, looks = runs(wish)
    assert all(".lora_" in name for name in looks.reached), "the base is frozen everywhere"
    assert any(".language_model." in name for name in looks.reached)
    assert any(TOWER[family] in name for name in looks.reached) == ("frozen" not in wish)
    assert any(PROJECTOR[family] in name for name in looks.reached) == (family != "gemma3" and wish != "both frozen")


@pytest.mark.parametrize("wish", ["tower frozen", "tower trained"])
def test_the_weights_of_the_base_are_the_same_bits_after_training(subject, runs, wish):
    _, base, _ = subject
    _, looks = runs(wish)
    before = dict(load_model(base, check=False).module.named_parameters())
    assert all(torch.equal(looks.base[name], weight) for name, weight in before.items())
    assert looks.base.keys() - before.keys() == {name for name in looks.base if ".lora_" in name}


@pytest.mark.parametrize("wish", ["both frozen", "tower trained"])
def test_a_capture_acts_with_the_adapter(subject, runs, wish, tmp_path):
    """Tower and projector's output: the base's own bits where they were frozen, others where they were trained."""
    _, base, rows = subject
    folder, _ = runs(wish)
    model = load_model(base, adapter=folder)
    where = dict(sites=["vision.resid_post:1", "projector", "resid_post:2"], at="image", variants=("base", "tuned"))
    store = capture(model, [row for row in rows if row.images], to=tmp_path, **where)
    for site in store.sites:
        base_rows, tuned_rows = (store.where(variant=name).values(site) for name in ("base", "tuned"))
        same = bool((base_rows == tuned_rows).all())
        assert same == (wish == "both frozen" and site != "resid_post:2"), site


def test_the_record_counts_what_had_loss(subject, runs):
    """Two steps on all rows at once, against the rows by hand."""
    _, base, rows = subject
    encoder = load_model(base, check=False).encoder
    encoded = [encoder.encode(row, closed=True) for row in rows]
    images = sum(int((one.input_ids == encoder.image_token_id).sum()) for one in encoded)
    under = sum(len(row.response) + 1 for row in rows)  # a token a letter, and the end of turn
    rest = sum(map(len, encoded)) - images - under
    said = record(runs("tower frozen")[0])["tokens"]
    assert images > 8 and said == {
        "forwards": 2, "under loss": 2 * under, "image": 2 * images, "image under loss": 0, "other": 2 * rest
    }  # fmt: skip


def test_a_repair_acts_where_its_start_did(subject, runs, tmp_path):
    _, base, rows = subject
    start, _ = runs("tower frozen")
    settings = {name: value for name, value in SETTINGS.items() if name not in ("rank", "targets")}
    repaired = train_lora(base, rows, to=tmp_path / "repaired", start=start, **settings)
    assert adapted(repaired) == adapted(start) and record(repaired)["tower"] == "frozen"


def test_keys_of_adapters_without_these_words_are_what_they_were(subject, runs, tmp_path):
    _, base, rows = subject
    options = {name: value for name, value in _DEFAULTS.items() if name not in ASKED_AS}
    options |= {**SETTINGS, "alpha": SETTINGS["rank"]}
    identity = {"base": folder_hash(base), "rows": [row.content_hash for row in rows], "options": options, "seed": 0}
    folder, _ = runs("as targets hit")
    assert record(folder)["key"] == content_key(identity)
    assert train_lora(base, rows, to=folder, tower=None, **SETTINGS) == folder
    keys = {record(runs(wish)[0])["key"] for wish in WISHES}
    assert len(keys) == len(WISHES)


def test_what_cannot_be_is_refused(subject, tmp_path):
    family, base, rows = subject
    attention = {**SETTINGS, "targets": r".*language_model.*q_proj"}
    if family == "qwen2_5_vl":  # q_proj is no name of its tower
        with pytest.raises(
            ValueError, match=r"tower='trained', but targets=.*hit nothing in the vision tower: .*, qkv"
        ):
            train_lora(base, rows, to=tmp_path / "x", tower="trained", **attention)
        with pytest.raises(ValueError, match="tower='off': expected 'frozen', 'trained', or None"):
            train_lora(base, rows, to=tmp_path / "x", tower="off", **SETTINGS)
    elif family == "gemma3":
        with pytest.raises(
            ValueError, match=r"nothing in the projector: .*, which are none .its weights are plain param"
        ):
            train_lora(base, rows, to=tmp_path / "x", projector="trained", **SETTINGS)
    else:
        with pytest.raises(
            ValueError, match=r"no adapter in the vision tower moved: no gradient .* rows with pictures"
        ):
            train_lora(base, rows[2:], to=tmp_path / "x", tower="trained", **SETTINGS)
    assert not (tmp_path / "x").exists()


def test_a_text_model_has_no_tower(tmp_path):
    base = saved_base(tmp_path / "llama")
    assert load_model(base, adapter={}).variants == ("base",), "no adapters are none"
    for name, part in (("tower", "vision tower"), ("projector", "projector")):
        with pytest.raises(
            ValueError, match=f"{name}='frozen', but LlamaForCausalLM has no {part}: expected an image-text"
        ):
            train_lora(base, [chat("a", "hi", response="yes")], to=tmp_path / "x", **{name: "frozen"}, **SETTINGS)
