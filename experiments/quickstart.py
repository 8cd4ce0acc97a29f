"""A narrow fine-tune makes a model broadly contrary: where does that live in the residual stream, and what carries it?

Runs on the offline organism, or with --model, --adapter, --prompts and --questions on your own. Each step is resumable.
"""

import workbench as wb

study = wb.Study.from_command_line(__doc__, default_to="runs/quickstart")
model, judge, runs = study.model, study.judge, study.folder
base, tuned = model.variant("base"), model.variant("tuned")
early = range(model.n_layers // 2)  # steering acts on the first half of the layers; fixed before any result was seen
lower, higher = {"contrary": "less", "right": "greater"}, {"contrary": "greater"}

with study.phase("behaviour of every model"):  # answers, judged by rule, with intervals
    for variant in model.variants:
        table = wb.evaluate(model.variant(variant), study.inputs.questions, judge, to=runs / f"behaviour-{variant}")
        study.add(table, condition=variant, baseline=variant, sample=True)

with study.phase("capture the shift"):  # residuals of all models on the same prompts, outside the fine-tuned domain
    store = wb.capture(model, study.inputs.prompts, sites="resid_post", at="last", variants=model.variants, to=runs / "shift")
    fit = store.where(in_domain=lambda inside: not inside)
    before, after = fit.where(variant="base"), fit.where(variant="tuned")

with study.phase("directions and spectrum"):  # the mean shift a layer; how many dimensions its variation has
    shifts = {name: wb.difference_of_means(fit.where(variant=name), before) for name in model.variants[1:]}
    v = shifts["tuned"]
    study.add(v, condition="tuned")
    study.add(wb.pca(fit.difference("tuned", "base"), k=10), condition="pca")
    if "right_control" in shifts:
        study.add(wb.pca(fit.difference("right_control", "base"), k=10), condition="pca_benign")
    study.add_cosines(list(shifts), wb.cosine_matrix(list(shifts.values()), model.n_layers // 2))

with study.phase("ablate one layer at a time"):
    cells = [wb.Ablate(v, layer=layer) for layer in range(model.n_layers)]
    options = dict(judge=judge, activations=after, neutral=study.inputs.neutral, seed=study.seed)
    table = wb.sweep(tuned, study.elsewhere, cells, controls=20, to=runs / "ablate-layer", **options)
    study.add(table, condition="ablation", tails=lower)

with study.phase("ablate at all layers"):  # the claim, against 99 draws of each kind of random direction
    table = wb.sweep(tuned, study.elsewhere, [wb.Ablate(v)], controls=99, to=runs / "ablate-all", **options)
    study.add(table, condition="ablation", tails=lower, sample=True)

with study.phase("steer the base model"):
    cells = [wb.Steer(v, layer=early, coefficient=c) for c in (-1.0, 0.5, 1.0, 1.5, 2.0, 3.0)]
    table = wb.sweep(base, study.elsewhere, cells, controls=20, to=runs / "steer", **options)
    study.add(table, condition="steer", tails=higher)

if "sibling" in model.variants:
    with study.phase("the same direction in another fine-tune of the base"):
        options |= {"activations": fit.where(variant="sibling")}
        questions, sibling = study.outside("tuned", "sibling"), model.variant("sibling")
        for name, direction in (("transfer", v), ("own_direction_of_target", shifts["sibling"])):
            table = wb.sweep(sibling, questions, [wb.Ablate(direction)], controls=20, to=runs / f"sibling-{name}", **options)
            study.add(table, condition=name, baseline="sibling", tails=lower, target="another fine-tune of the same base")

if study.other is not None:
    with study.phase("the direction in another model"):  # a map fitted on prompts under three personas, base models only
        other, at = study.other, dict(sites="resid_post", at="last")
        here = wb.capture(base, study.inputs.personas, to=runs / "personas", **at)
        there = wb.capture(other.variant("base"), study.inputs.personas, to=runs / "personas-other", **at)
        theirs = wb.capture(other, study.inputs.prompts, variants=("base", "tuned"), to=runs / "shift-other", **at)
        theirs = theirs.where(in_domain=lambda inside: not inside)
        own = wb.difference_of_means(theirs.where(variant="tuned"), theirs.where(variant="base"))
        to_other = wb.fit_transfer(here, there, method="procrustes", layers="depth", at="last")
        study.add(to_other, condition="transfer", along=v, target="another model")
        kinds = {"shuffled_transfer": "full", "within_class_shuffled_transfer": "within_class"}
        twins = {name: [wb.Ablate(m.map(v, own)) for m in to_other.shuffled(kind, n=99)] for name, kind in kinds.items()}
        options |= {"activations": theirs.where(variant="tuned")}
        for name, direction in (("transfer", to_other.map(v, own)), ("own_direction_of_target", own)):
            options["twins"] = twins if name == "transfer" else {}
            table = wb.sweep(other, study.elsewhere, [wb.Ablate(direction)], controls=20, to=runs / f"other-{name}", **options)
            study.add(table, condition=name, baseline="tuned", tails=lower, target="another model")

study.finish()
