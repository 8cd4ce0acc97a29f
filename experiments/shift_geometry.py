"""How many dimensions has the change that a narrow fine-tune makes, and how many of them hold the behaviour?

Shift: activations of the fine-tune minus those of its base, same prompts, outside the fine-tuned domain. Decomposed in
every named sense at the last token, at image and at text positions of the language model and in the vision tower (for
which an adapter is trained that adapts the tower too; a frozen tower is "unchanged"), with null and a benign fine-tune
at equal n. Image against text positions: principal angles with their null; tower and language model share no space, so
no angle is taken between them. Then the causal answer: the first k dimensions taken out at every layer, or nothing else
kept, and the answers judged again, against subspaces of equal energy. Resumable.
"""

import workbench as wb

study = wb.Study.from_command_line(
    __doc__,
    default_to="runs/shift_geometry",
    **dict(layers=[int], vision_layers=[int], ks=[0, 1, 2, 3, 5, 10, 20], k=10, draws=20, rank=32, metric="contrary"),
    causal=["paired_shift_raw:ablate_top_k", "paired_shift_raw:keep_top_k", "paired_shift_centered:ablate_top_k"],
)
asked, inputs = study.asked, study.inputs
pairs = {"tuned": "right_control", "tower": "tower_right"}  # a fine-tune, and the benign one beside it
prompts = [p for p in wb.read_prompts(inputs.prompts) if p.tags.get("domain") not in inputs.domains.values()]
pictured, layer = [p for p in prompts if p.images], asked.layers or "all"

with study.phase("an adapter that trains the vision tower too, and a benign one"):
    rows = {"tower": inputs.train, "tower_right": next(iter(inputs.fillers.values()), None)}
    if inputs.kind == "organism":  # its own fine-tune shows no pictures: contrary and right colours do
        colours = wb.organism(study.seed, domain="color", to=study.folder / "organism of colours")
        rows = {"tower": colours.train, "tower_right": colours.train_right}
    recipe = {**inputs.recipe, "rank": asked.rank, "targets": "all-linear", "tower": "trained"}
    recipes = {name: wb.Recipe(given, recipe) for name, given in rows.items() if given and pictured}
    if recipes and not study.plan:
        towers = wb.population(
            inputs.base, recipes, to=study.folder / "towers", seeds=[study.seed], part=asked.part, engine=asked.engine
        )
        inputs.adapters.update({name.partition("-")[0]: str(path) for name, path in towers.adapters.items()})
    variants = ["base", *(name for both in pairs.items() for name in both if name in {*inputs.adapters, *recipes})]

if study.plan:
    study.plan.population(recipes, seeds=[study.seed])
    study.plan.capture(prompts, *variants, at="last")
    written = dict(responses="generate", max_new_tokens=study.max_new_tokens)
    study.plan.capture(prompts, *variants, at="response", **written)
    for at in ("text", "image") if pictured else ():
        study.plan.capture(pictured, *variants, at=at, pool="mean")
    study.plan.capture(prompts, "tuned", at="all")
    cells = [wb.Ablate(study.plan.direction(asked.layers), layer=layer)] * (len(asked.ks) * (1 + asked.draws))
    for step in [*variants, *asked.causal]:
        study.plan.measure([] if step in variants else cells, study.elsewhere)
    study.plan.stop()

with study.phase("activations at the last token, of their own answers, at image and text positions, in the tower"):
    where = dict(layers=asked.layers, vision_layers=asked.vision_layers, max_new_tokens=study.max_new_tokens)
    places = wb.capture_places(study.model, prompts, variants, to=study.folder / "places", **where)

kinds = [(variant, "none") for variant in wb.SHIFT_VARIANTS if variant != "text_minus_base_text"]
scaled = [("paired_shift_centered", scale) for scale in ("std", "whiten")]  # whose components are read-outs
own = {"last token": [*kinds, *scaled], "own answers": [("text_minus_base_text", "none")]}
spans = {"image positions": {}, "text positions": {}}
for place, rows in places.items():
    with study.phase(f"spectra: {place}"):
        for tuned, benign in ((one, other) for one, other in pairs.items() if one in variants):
            of = {name: rows.where(variant=name) for name in ("base", tuned, benign) if name in variants}
            for variant, scale in own.get(place, kinds):
                found = wb.shift_against(of["base"], of[tuned], of.get(benign), variant, asked.k, scale=scale)
                study.add(found, condition=tuned, split=place)
                if place in spans and variant == "paired_shift_centered":
                    spans[place] |= {tuned: found.tuned, f"{tuned}_benign": found.benign}

with study.phase("image positions against text positions"):
    for name, image in spans["image positions"].items():
        if image is not None:
            study.add(wb.shift_overlap(image, spans["text positions"][name], names=tuple(spans)), condition=name)

with study.phase("the causal curve"):
    plain = {one: dict(name=one, condition=one, baseline=one) for one in variants}
    unedited = {one: study.measure(study.model.variant(one), [], **plain[one]) for one in variants}
    tuned = study.model.variant("tuned")
    held = wb.capture(tuned, prompts, at="all", to=study.folder / "held").rows()  # what frames of equal energy combine
    last = [places["last token"].where(variant=name) for name in ("base", "tuned")]
    for variant, mode in (one.split(":") for one in asked.causal):
        space = wb.shift_pca(*last, variant, max(asked.ks), null=None).subspace
        plan = wb.top_k(space, asked.ks, layer=layer, modes=[mode], controls=asked.draws, rows=held)
        where = dict(name=f"{mode}, {variant}", condition=mode, detail=variant, target=f"{mode}, {variant}")
        table = study.measure(tuned, plan.cells, twins=plan.twins, tails={"contrary": "less"}, **where)
        for curve in wb.dimension_curves(table, asked.metric, base=unedited["base"]):
            study.add(curve, detail=variant, split="other_domains")
            print(variant, mode, curve.group, curve.needed())

study.finish()
