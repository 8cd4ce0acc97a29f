"""At which layers does the direction of a fine-tune act, and does one layer's direction serve everywhere?

Ablates the difference of means (fine-tuned - base) layer by layer, at all layers, and with one layer's vector at all
layers, against random directions that hold as much energy. Runs on the organism, or on your own --model.
"""

import workbench as wb

study = wb.Study.from_command_line(__doc__, default_to="runs/layer_ablation")
model, layers = study.model, range(study.model.n_layers)
tuned, lower = model.variant("tuned"), {"contrary": "less", "right": "greater"}

with study.phase("behaviour before and after fine-tuning"):
    for name in ("base", "tuned"):
        options = dict(condition=name, baseline=name, sample=True)
        study.measure(model.variant(name), [], name=f"behaviour-{name}", **options)

with study.phase("the direction at every layer"):  # on prompts that are not evaluated, outside the fine-tuned domain
    rows = study.capture(model, study.inputs.prompts, "base", "tuned", name="shift")
    v = wb.difference_of_means(rows.where(variant="tuned"), rows.where(variant="base"))
    study.add(v, condition="tuned")

held = study.capture(tuned, study.inputs.prompts, name="held", at="all")  # what the energy-matched controls combine
options = dict(activations=held, control_kinds=["energy_matched"], tails=lower)
with study.phase("each layer alone, to the mean of the base"):  # 99 draws: the best layer's p pays for the choice
    cells = [wb.Ablate(v, layer=layer) for layer in layers]
    study.measure(tuned, cells, name="each-layer", condition="ablation", written=False, controls=99, **options)

with study.phase("all layers, each with its own vector"):
    study.measure(tuned, [wb.Ablate(v)], name="all-layers", condition="ablation", controls=99, sample=True, **options)

with study.phase("all layers, to zero instead of the mean"):
    cell = [wb.Ablate(v, to="zero")]
    study.measure(tuned, cell, name="to-zero", condition="ablation_to_zero", controls=20, **options)

with study.phase("all layers, with the vector of one"):
    for layer in layers:
        where = dict(name=f"source-{layer}", detail=f"the vector of layer {layer} at every layer")
        study.measure(tuned, [wb.Ablate(v, source=layer)], condition="ablation_of_one_vector", **where)

study.finish()
