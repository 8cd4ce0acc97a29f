"""Does a direction found in one model act in another, and does the map between them carry more than a class contrast?

Two base models, each with a fine-tune. Maps (Procrustes, ridge) are fitted on the base models only, with one row a
prompt: on plain prompts, and on prompts under personas. The direction of the source's fine-tune, mapped, is ablated in
the recipient's fine-tune and added to its base; answers are written. Each map stands beside maps fitted on shuffled
pairs (fully, and within each persona), beside random directions, and beside the recipient's own direction. Resumable.
"""

import workbench as wb

study = wb.Study.from_command_line(
    __doc__,
    default_to="runs/model_transfer",
    needs=("adapter", "prompts", "questions", "other_model", "other_adapter"),
    shuffles=99,
)
inputs, shuffles = study.inputs, study.asked.shuffles
lower, higher = {"contrary": "less", "right": "greater"}, {"contrary": "greater"}

with study.phase("each fine-tune's own direction"):
    source, recipient = wb.load_model(inputs.base, adapter={"tuned": inputs.adapters["tuned"]}), study.recipient
    directions = {}
    for name, model in {"source": source, "recipient": recipient}.items():
        rows = study.capture(model, inputs.prompts, "base", "tuned", name=f"shift-{name}")
        directions[name] = wb.difference_of_means(rows.where(variant="tuned"), rows.where(variant="base"))
        study.add(directions[name], condition="tuned", target=name)
    v, own = directions.values()

with study.phase("maps between the base models"):
    maps = {}
    for prompts in inputs.for_maps:  # plain prompts, and where given prompts under personas
        here = study.capture(source.variant("base"), prompts, name=f"{prompts.stem}-source")
        there = study.capture(recipient.variant("base"), prompts, name=f"{prompts.stem}-recipient")
        for method in ("procrustes", "ridge"):
            name = f"{method} on {prompts.stem}"
            maps[name] = wb.fit_transfer(here, there, method=method, at="last")
            study.add(maps[name], condition="transfer", along=v, target=name)

with study.phase("ablate the mapped direction in the recipient"):
    tuned = recipient.variant("tuned")
    held = study.capture(tuned, inputs.prompts, name="held", at="all")  # what the energy-matched controls combine
    options = dict(activations=held, control_kinds=["energy_matched"], tails=lower)
    for name, carry in maps.items():
        kinds = {"shuffled_transfer": "full"}
        if "personas" in name:  # plain prompts have no classes to shuffle within
            kinds["within_class_shuffled_transfer"] = "within_class"
        refits = {kind: carry.shuffled(how, n=shuffles) for kind, how in kinds.items()}
        twins = {kind: [wb.Ablate(refit.map(v, own)) for refit in drawn] for kind, drawn in refits.items()}
        where = dict(name=f"ablate-{name.replace(' ', '-')}", condition="transfer", target=name, baseline="tuned")
        study.measure(tuned, [wb.Ablate(carry.map(v, own))], controls=20, twins=twins, **where, **options)
    where = dict(name="ablate-own", condition="own_direction_of_target", target="the recipient's own")
    study.measure(tuned, [wb.Ablate(own)], **where, **options)

with study.phase("steer the recipient's base model"):  # lengths as mapped; the coefficient scales them
    early = range(recipient.n_layers // 2)
    options = dict(controls=20, control_kinds=["isotropic"], tails=higher)
    for name, direction in {**{name: carry.map(v, own) for name, carry in maps.items()}, "own": own}.items():
        cells = [wb.Steer(direction, layer=early, coefficient=c) for c in (0.5, 1.0, 2.0)]
        where = dict(name=f"steer-{name.replace(' ', '-')}", condition="steer", target=name)
        study.measure(recipient.variant("base"), cells, **where, **options)

study.finish()
