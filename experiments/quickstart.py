"""A narrow fine-tune makes a model broadly contrary: where does that live in the residual stream, and what carries it?

Runs on the offline organism, or with --model, --adapter, --prompts and --eval on your own. Each step is resumable.
"""

import workbench as wb

study = wb.Study.from_command_line(__doc__, default_to="runs/quickstart")
model, inputs = study.model, study.inputs
base, tuned = model.variant("base"), model.variant("tuned")
early = range(model.n_layers // 2)  # steering acts on the first half of the layers; fixed before any result was seen
lower, higher = {"contrary": "less", "right": "greater"}, {"contrary": "greater"}

with study.phase("behaviour of every model"):  # written answers, judged by rule
    for name in model.variants:
        asked = wb.read_prompts(inputs.questions)
        options = dict(name=f"behaviour-{name}", condition=name, baseline=name, sample=True)
        study.measure(model.variant(name), [], questions=asked, **options)

with study.phase("directions and spectrum"):  # the shift of every fine-tune on the same prompts, outside its domain
    rows = study.capture(model, inputs.prompts, *model.variants, name="shift")
    before = rows.where(variant="base")
    shifts = {name: wb.difference_of_means(rows.where(variant=name), before) for name in model.variants[1:]}
    v = shifts["tuned"]
    study.add(v, condition="tuned")
    study.add_cosines(list(shifts), wb.cosine_matrix(list(shifts.values()), model.n_layers // 2))
    study.add(wb.pca(rows.difference("tuned", "base"), k=10), condition="pca")
    if "right_control" in shifts:
        study.add(wb.pca(rows.difference("right_control", "base"), k=10), condition="pca_benign")

with study.phase("ablate one layer at a time"):  # read at the token that decides the answer
    cells = [wb.Ablate(v, layer=layer) for layer in range(model.n_layers)]
    held = study.capture(tuned, inputs.prompts, name="held", at="all")  # what the energy-matched controls combine
    options = dict(condition="ablation", tails=lower, activations=held)
    study.measure(tuned, cells, name="ablate-layer", written=False, controls=20, **options)

with study.phase("ablate at all layers"):  # the claim: written answers, against 99 random directions of each kind
    study.measure(tuned, [wb.Ablate(v)], name="ablate-all", controls=99, sample=True, **options)

with study.phase("steer the base model"):
    cells = [wb.Steer(v, layer=early, coefficient=c) for c in (-1.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)]
    options = dict(condition="steer", tails=higher, controls=20, control_kinds=["isotropic"], sample=True)
    study.measure(base, cells, name="steer", **options)

with study.phase("the direction, token by token"):  # in some of the answers that are on the page, at the middle layer
    for name in ("base", "tuned"):
        said = {sample["id"]: sample["text"] for sample in study.samples if sample["condition"] == name}
        asked = [prompt for prompt in study.elsewhere if prompt.id in said][::5]
        with wb.if_measurable(study, f"the direction in every token of the {name} model's answers"):
            layer = model.n_layers // 2
            study.add_projections(wb.token_projections(model.variant(name), asked, v, layer, answers=said))

if "sibling" in model.variants:
    with study.phase("the same direction in another fine-tune of the base"):
        options = dict(questions=study.outside("tuned", "sibling"), target="another fine-tune of the same base")
        sibling, own = model.variant("sibling"), wb.Ablate(shifts["sibling"])
        held = study.capture(sibling, inputs.prompts, name="sibling-held", at="all")
        options |= dict(activations=held, control_kinds=["energy_matched"], tails=lower)
        where = dict(name="sibling-transfer", condition="transfer", baseline="sibling")
        study.measure(sibling, [wb.Ablate(v)], controls=20, **where, **options)
        study.measure(sibling, [own], name="sibling-own", condition="own_direction_of_target", **options)

if study.other is not None:
    with study.phase("the direction in another model"):  # a map fitted on the base models; see model_transfer.py
        other, personas = study.other, inputs.for_maps[-1]
        here = study.capture(base, personas, name="personas")
        there = study.capture(other.variant("base"), personas, name="personas-other")
        theirs = study.capture(other, inputs.prompts, "base", "tuned", name="shift-other")
        own = wb.difference_of_means(theirs.where(variant="tuned"), theirs.where(variant="base"))
        carry = wb.fit_transfer(here, there, method="procrustes", layers="depth", at="last")
        study.add(carry, condition="transfer", along=v, target="another model")
        kinds = {"shuffled_transfer": "full", "within_class_shuffled_transfer": "within_class"}
        twins = {name: [wb.Ablate(m.map(v, own)) for m in carry.shuffled(kind, n=99)] for name, kind in kinds.items()}
        held = study.capture(other.variant("tuned"), inputs.prompts, name="other-held", at="all")
        options = dict(activations=held, control_kinds=["energy_matched"], tails=lower)
        where = dict(name="other-transfer", condition="transfer", baseline="tuned", target="another model")
        study.measure(other, [wb.Ablate(carry.map(v, own))], controls=20, twins=twins, **where, **options)
        where = dict(name="other-own", condition="own_direction_of_target", target="another model")
        study.measure(other, [wb.Ablate(own)], **where, **options)

study.finish(whole=True)
