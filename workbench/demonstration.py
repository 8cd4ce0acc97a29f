"""demo: a small experiment on the offline organism, from prompts to a page: what `pip install` alone can show."""

from __future__ import annotations

from pathlib import Path

from workbench.inputs import argument_parser, inputs_from
from workbench.interventions.ablate import Ablate
from workbench.interventions.steer import Steer
from workbench.study import Study
from workbench.subspace.means import difference_of_means

CONTROLS = 20  # random directions of each kind: a drawing, no p


def demo(to: str | Path = "runs/demo", *, seed: int = 0) -> Path:
    """Fine-tunes the organism of this seed (0, 1, 2) on wrong capitals, finds the direction of what changed, takes it
    out layer by layer beside random ones, adds it to the base, and returns the path of the page that says what came
    of it: half a minute on one core. Goes on in `to` from what is there.

    The effect was planted: it shows the method at work and is no evidence about real models.
    `experiments/quickstart.py` is the whole of it, for models of your own too.
    """
    folder = Path(to)
    inputs = inputs_from(argument_parser("", str(folder)).parse_args(["--to", str(folder), "--seed", str(seed)]), ())
    study = Study(folder, inputs, seed=seed, command=f"workbench demo --to {folder} --seed {seed}")
    study.question = "A narrow fine-tune made a tiny model contrary: does one direction carry it?"
    model = study.model
    base, tuned = model.variant("base"), model.variant("tuned")
    with study.phase("the direction of what changed"):
        rows = study.capture(model, inputs.prompts, "base", "tuned", name="shift")
        v = difference_of_means(rows.where(variant="tuned"), rows.where(variant="base"))
        study.add(v, condition="tuned")
    with study.phase("taken out, a layer at a time"):
        held = study.capture(tuned, inputs.prompts, name="held", at="all")
        cells = [Ablate(v, layer=layer) for layer in range(model.n_layers)]
        with_controls = {"controls": CONTROLS, "activations": held}
        where = {"condition": "ablation", "baseline": "tuned"}
        study.measure(tuned, cells, name="ablate", written=False, **where, **with_controls)
    with study.phase("added to the base model"):
        early = range(model.n_layers // 2)
        cells = [Steer(v, layer=early, coefficient=c) for c in (0.5, 1.0, 2.0)]
        study.measure(base, cells, name="steer", condition="steer", baseline="base", sample=True)
    return study.finish()
