"""The logic of claims on planted summaries: all hold, one seed against, missing, mixed, and every way to decide."""

import pytest
from judged_entries import entry, rank_study

from workbench.reporting import paper_a_claims, paper_b_claims, read_summary
from workbench.reporting.claims import Claim, Part, decided

SIDES = {"metric": "m", "condition": "c"}


def runs(*by_seed, script="s"):
    """One script's runs with base seeds 0, 1, ...; None: a base seed without its results."""
    return {
        script: {seed: read_summary({"results": results or [], "seed": seed}) for seed, results in enumerate(by_seed)}
    }


def one(parts, *by_seed):
    """The decision on a claim of these parts."""
    return decided([Claim("n", "sentence", "s", tuple(parts))], runs(*by_seed))[0]


def number(low, high, **facts):
    return [entry("m", (low + high) / 2, "c", **{"interval": [low, high], **facts})]


def with_p(p, value=0.5):
    return number(value - 0.1, value + 0.1, test={"p": p, "method": "flips"})


@pytest.mark.parametrize(
    ("seeds", "verdict"),
    [
        ([(0.1, 0.3)] * 3, "shown"),
        ([(0.1, 0.3)] * 2 + [(-0.3, -0.1)], "not shown"),  # one base seed against
        ([(0.1, 0.3)] * 2 + [(-0.1, 0.3)], "not shown"),
        ([(-0.3, -0.1)] * 3, "against"),
        ([(-0.3, -0.1)] * 2 + [(-0.1, 0.3)], "not shown"),
        ([(0.1, 0.3)] * 2, "not shown"),  # two base seeds are not enough
        ([None] * 3, "not measured"),
        ([(0.1, 0.3)] * 2 + [None], "not shown"),
    ],
    ids=["all", "one-against", "one-open", "against", "mixed", "two", "none", "one-missing"],
)
def test_the_verdict_over_base_seeds(seeds, verdict):
    assert one([Part("x", SIDES)], *[ends and number(*ends) for ends in seeds]).verdict == verdict


def test_every_number_of_a_claim_has_to_hold():
    other = {"metric": "m", "condition": "d"}
    both = [*number(0.1, 0.3), entry("m", 0.2, "d")]
    assert one([Part("x", SIDES), Part("y", other)], both, both, both).verdict == "shown"
    half = [*number(0.1, 0.3), entry("m", 0.02, "d")]
    assert one([Part("x", SIDES), Part("y", other)], half, half, half).verdict == "not shown"
    assert one([Part("x", SIDES), Part("y", other)], *[number(0.1, 0.3)] * 3).verdict == "not measured"


def test_one_number_against_outweighs_one_that_is_open_and_a_missing_one_both():
    parts = [Part(name, {"metric": "m", "condition": name}) for name in "abc"]
    rows = [entry("m", -0.5, "a"), entry("m", 0.0, "b"), entry("m", 0.5, "c")]
    assert one(parts, rows, rows, rows).verdict == "against"
    assert one(parts, rows[:2], rows[:2], rows[:2]).verdict == "not measured"


def test_the_bound_and_the_side_are_the_claims_own():
    above_half = number(0.55, 0.7)
    assert one([Part("x", SIDES, bound=0.5)], *[above_half] * 3).verdict == "shown"
    assert one([Part("x", SIDES, bound=0.6)], *[above_half] * 3).verdict == "not shown"
    assert one([Part("x", SIDES, "below", bound=0.5)], *[above_half] * 3).verdict == "against"


def test_without_an_interval_nothing_holds():
    bare = [entry("m", 0.9, "c", interval=None)]
    found = one([Part("x", SIDES)], bare, bare, bare)
    assert found.verdict == "not shown" and found.seeds[0][0].why == "it has no interval"


def test_p_are_corrected_over_the_claims_and_taken_together_within_one():
    """Three claims at p = 0.02 each: by Holm 0.06. As three numbers of one claim: the largest, 0.02, uncorrected."""
    rows = [entry("m", 0.5, name, test={"p": 0.02, "method": "flips"}) for name in "abc"]
    parts = [Part(name, {"metric": "m", "condition": name}) for name in "abc"]
    apart = decided([Claim(part.label, "", "s", (part,)) for part in parts], runs(rows, rows, rows))
    assert [claim.verdict for claim in apart] == ["not shown"] * 3
    assert apart[0].p == {seed: pytest.approx(0.06) for seed in range(3)}
    assert one(parts, rows, rows, rows).verdict == "shown"


def test_the_largest_p_of_a_claim_is_the_one_that_is_corrected():
    """0.001 and 0.04 in one claim, 0.04 in another: corrected 0.08, so neither holds."""
    rows = [entry("m", 0.5, name, test={"p": p, "method": "flips"}) for name, p in (("a", 0.001), ("b", 0.04))]
    parts = [Part(name, {"metric": "m", "condition": name}) for name in "ab"]
    both = decided([Claim("both", "", "s", tuple(parts)), Claim("b", "", "s", (parts[1],))], runs(rows, rows, rows))
    assert [claim.verdict for claim in both] == ["not shown"] * 2


def test_a_clear_interval_with_a_large_p_is_open():
    assert one([Part("x", SIDES)], *[with_p(0.2)] * 3).verdict == "not shown"
    assert one([Part("x", SIDES)], *[with_p(0.01)] * 3).verdict == "shown"


def test_a_trend_is_decided_by_its_sign_and_p():
    def made(strength, p):
        return [entry("m", strength, "c", interval=None, test={"p": p, "method": "Page"})]

    part = Part("x", SIDES, by="trend")
    cases = {(0.9, 0.001): "shown", (0.9, 0.2): "not shown", (-0.9, 0.001): "against", (-0.9, 0.2): "not shown"}
    assert {key: one([part], *[made(*key)] * 3).verdict for key in cases} == cases


def test_a_share_of_variance_is_held_against_its_own_null():
    def made(value, p):
        control = {"kind": "random signs", "N": 99, "p": p, "draws": []}
        return [entry("m", value, "c", interval=None, control=control)]

    part = Part("x", SIDES, bound=0.5, by="null")
    cases = {(0.9, 0.01): "shown", (0.9, 0.4): "not shown", (0.4, 0.01): "against"}
    assert {key: one([part], *[made(*key)] * 3).verdict for key in cases} == cases


def test_an_auroc_is_against_only_where_its_shuffles_go_further():
    """Chance puts half of all such numbers below 0.5; a share of variance below a half is measured to be one."""

    def made(value, p):
        control = {"kind": "shuffled", "N": 999, "p": p, "draws": []}
        return [entry("m", value, "c", interval=None, control=control)]

    part = Part("x", SIDES, bound=0.5, by="shuffled")
    cases = {(0.9, 0.01): "shown", (0.6, 0.2): "not shown", (0.4, 0.8): "not shown", (0.1, 0.97): "against"}
    assert {key: one([part], *[made(*key)] * 3).verdict for key in cases} == cases


def test_control_runs_are_counted():
    def made(draws):
        twin = entry("twin", 0.5, "c", control={"kind": "energy_matched", "N": len(draws), "p": None, "draws": draws})
        return [entry("m", 0.1, "c"), twin]

    part = Part("x", SIDES, "below", by="draws", other={"metric": "twin", "condition": "c"})
    assert one([part], *[made([0.5] * 20)] * 3).verdict == "shown"
    tied = one([part], *[made([0.5] * 19 + [0.1])] * 3)  # a tie is not below
    assert tied.verdict == "not shown" and tied.seeds[0][0].why == "1 of 20 control runs go as far"
    assert one([part], *[made([0.5] * 10)] * 3).verdict == "not measured"


def test_the_interval_between_two_rates_comes_from_theirs():
    """Newcombe's interval: 0.5 (0.4-0.6) minus 0.2 (0.1-0.3) is 0.3 +- sqrt(2) * 0.1."""
    rows = [entry("m", 0.5, "c", interval=[0.4, 0.6]), entry("m", 0.2, "d", interval=[0.1, 0.3])]
    found = one([Part("x", SIDES, by="between", other={"metric": "m", "condition": "d"})], rows, rows, rows)
    low, high = found.seeds[0][0].interval or (0.0, 0.0)
    assert (low, high) == (pytest.approx(0.3 - 0.1 * 2**0.5), pytest.approx(0.3 + 0.1 * 2**0.5))
    assert found.verdict == "shown" and found.seeds[0][0].n == 200


def test_counts_are_ordered_as_wholes():
    def made(*tower):
        return [entry("m", k, "c", interval=None, layer=at) for at, k in enumerate(tower)] + [
            entry("m", k, "d", interval=None, layer=at) for at, k in enumerate((8, 9))
        ]

    part = Part("x", SIDES, "below", by="order", other={"metric": "m", "condition": "d"})
    cases = {(3, 7): "shown", (3, 8): "not shown", (10, 11): "against"}
    assert {key: one([part], *[made(*key)] * 3).verdict for key in cases} == cases


class TestPaperA:
    def on(self, **planted):
        """The verdicts by claim, on three base seeds of the rank study alone."""
        by_seed = {seed: read_summary(rank_study(seed, **planted)) for seed in range(3)}
        return {found.claim.name: found.verdict for found in decided(paper_a_claims(), {"lora_rank": by_seed})}

    def test_the_rank_claims_find_their_entries(self):
        found = self.on()
        assert found.pop("rank") == "shown"
        assert found.pop("modality, other questions") == "against"  # 0.5 with pictures, 0.9 in text
        assert found.pop("modality, same questions") == "shown"
        assert set(found.values()) == {"not measured"} and len(found) == 13

    def test_they_can_fall_either_way(self):
        found = self.on(text=0.2, image=0.8, strength=-0.9, gap=-0.4)
        assert found["rank"] == "against" and found["modality, same questions"] == "against"
        assert found["modality, other questions"] == "shown"
        assert self.on(p=0.5)["rank"] == "not shown"

    def test_the_highest_rank_decides_by_number_not_by_name(self):
        """Rank 4 sorts behind rank 32 as text; there the gap is half as large."""
        gaps = [found for found in decided(paper_a_claims(), {"lora_rank": {0: read_summary(rank_study())}})
                if found.claim.name == "modality, same questions"]  # fmt: skip
        assert [one.value for one in gaps[0].seeds[0]] == [pytest.approx(0.4)]

    @pytest.mark.parametrize(
        ("claims", "scripts"),
        [
            (paper_a_claims, {"lora_rank", "harmful_fraction", "shift_geometry", "mitigation"}),
            (
                paper_b_claims,
                {"domain_ranking", "membership_predictor", "probe_matrix", "direction_transfer", "convergence"},
            ),
        ],
    )
    def test_names_are_unique_and_every_claim_says_its_script(self, claims, scripts):
        listed = claims()
        assert len({claim.name for claim in listed}) == len(listed)
        assert {claim.script for claim in listed} == scripts
