"""Does a direction found in one model act in another, and does the map between them carry more than a class contrast?

Maps are fitted on base models only, with one row a prompt: on plain prompts and on prompts under personas; each is
compared with maps fitted on shuffled pairs (fully, and within each persona) and with the recipient's own direction.
"""

import workbench as wb

study = wb.Study.from_command_line(__doc__, default_to="runs/direction_transfer")
model, other, inputs = study.model, study.recipient, study.inputs
tuned = other.variant("tuned")
lower, higher = {"contrary": "less", "right": "greater"}, {"contrary": "greater"}

with study.phase("both models' own directions"):
    directions = {}
    for name, each in (("source", model), ("recipient", other)):
        rows = study.capture(each, inputs.prompts, "base", "tuned", name=f"shift-{name}")
        directions[name] = wb.difference_of_means(rows.where(variant="tuned"), rows.where(variant="base"))
        study.add(directions[name], condition="tuned", target=name)
    v, own = directions["source"], directions["recipient"]

with study.phase("maps between the base models"):
    maps = {}
    for prompts in inputs.for_maps:  # plain prompts, and where given prompts under personas
        here = study.capture(model.variant("base"), prompts, name=f"{prompts.stem}-source")
        there = study.capture(other.variant("base"), prompts, name=f"{prompts.stem}-recipient")
        for method in ("procrustes", "ridge"):
            name = f"{method} on {prompts.stem}"
            maps[name] = wb.fit_transfer(here, there, method=method, at="last")
            study.add(maps[name], condition="transfer", along=v, target=name)

with study.phase("ablate the mapped direction in the recipient"):
    kinds = {"shuffled_transfer": "full", "within_class_shuffled_transfer": "within_class"}
    held = study.capture(tuned, inputs.prompts, name="held", at="all")  # what the energy-matched controls combine
    options = dict(activations=held, control_kinds=["energy_matched"], tails=lower)
    for name, carry in maps.items():
        usable = {kind: how for kind, how in kinds.items() if how == "full" or "personas" in name}
        twins = {kind: [wb.Ablate(m.map(v, own)) for m in carry.shuffled(how, n=99)] for kind, how in usable.items()}
        where = dict(name=f"ablate-{name.replace(' ', '-')}", condition="transfer", target=name, baseline="tuned")
        study.measure(tuned, [wb.Ablate(carry.map(v, own))], controls=20, twins=twins, **where, **options)
    where = dict(name="ablate-own", condition="own_direction_of_target", target="the recipient's own")
    study.measure(tuned, [wb.Ablate(own)], **where, **options)

with study.phase("steer the recipient's base model"):  # lengths as mapped; the coefficient scales them
    early = range(other.n_layers // 2)
    for name, direction in {**{name: carry.map(v, own) for name, carry in maps.items()}, "own": own}.items():
        cells = [wb.Steer(direction, layer=early, coefficient=c) for c in (0.5, 1.0, 2.0)]
        where = dict(name=f"steer-{name.replace(' ', '-')}", condition="steer", target=name)
        study.measure(other.variant("base"), cells, controls=20, control_kinds=["isotropic"], tails=higher, **where)

study.finish()
