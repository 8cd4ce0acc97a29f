"""Site: names, their inverse, ranges, and what is refused."""

import subprocess
import sys

import pytest

from hooks.site import POINTS, TOWERS, Site, parse_sites

EVERY = [Site(layer, point, tower) for layer in (0, 3, 27) for point in POINTS[1:] for tower in TOWERS]
EVERY.append(Site(0, "projector"))


@pytest.mark.parametrize("site", EVERY, ids=str)
def test_the_name_of_a_site_reads_back(site):
    assert Site.parse(str(site)) == site
    assert Site.parse(site) is site


def test_names_are_those_of_the_field():
    assert str(Site(3)) == "resid_post:3"
    assert str(Site(3, tower="vision")) == "vision.resid_post:3"
    assert Site(3, "resid_pre", "vision").stream == "vision.resid_pre"
    assert Site.parse("blocks.12.hook_resid_pre") == Site(12, "resid_pre")


def test_sites_are_values_ordered_by_layer():
    assert len({Site(1), Site(1), Site(2)}) == 2
    assert sorted([Site(10), Site(2)]) == [Site(2), Site(10)]
    with pytest.raises(AttributeError):
        Site(1).layer = 2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("resid_post", [Site(0), Site(1), Site(2)]),
        ("resid_post:1-2", [Site(1), Site(2)]),
        ("embedding", [Site(0, "resid_pre")]),
        ("final", [Site(2)]),
        ("vision.resid_pre", [Site(0, "resid_pre", "vision"), Site(1, "resid_pre", "vision")]),
        ("vision.final", [Site(1, tower="vision")]),
        ("projector", [Site(0, "projector")]),
        ("blocks.1.hook_resid_mid", [Site(1, "resid_mid")]),
        ("blocks.2.hook_attn_out, blocks.2.hook_mlp_out", [Site(2, "attn_out"), Site(2, "mlp_out")]),
        ("blocks.1.hook_in, blocks.1.hook_out", [Site(1, "resid_pre"), Site(1)]),
        ("resid_post:1, resid_post:1, resid_pre:0", [Site(1), Site(0, "resid_pre")]),
        (["resid_post:2", Site(0)], [Site(2), Site(0)]),
        (Site(1), [Site(1)]),
    ],
    ids=str,
)
def test_what_a_name_stands_for(names, expected):
    assert parse_sites(names, n_layers={"language": 3, "vision": 2}) == expected


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: Site(-1), "layers count from 0"),
        (lambda: Site(0, "attn"), "expected one of projector, resid_pre, attn_out, resid_mid, mlp_out, resid_post"),
        (lambda: Site(0, tower="audio"), "expected one of language, vision"),
        (lambda: Site.parse("resid_post"), "gives no layer"),
        (lambda: Site.parse("resid_post:1-3"), "names 3 sites"),
        (lambda: Site.parse("layer 3"), "is no site"),
        (lambda: Site.parse("hook_embed"), "expected 'embedding', the input of block 0"),
        (lambda: Site(1, "projector"), "there is one projector output"),
        (lambda: Site.parse("blocks.3.attn.hook_z"), "is no site"),
        (lambda: Site.parse("mlp_in:3"), "'mlp_in' is unknown"),
        (lambda: parse_sites("resid_post:3", n_layers=3), r"outside this model: expected layers 0\.\.2"),
        (lambda: parse_sites("vision.resid_post:0", n_layers={"language": 3}), "no 'vision' tower"),
    ],
)
def test_what_is_no_site_is_refused_with_the_mend(act, said):
    with pytest.raises(ValueError, match=said):
        act()


def test_the_projector_is_a_site_of_the_language_stream_alone():
    """It is read at the image positions of that stream; a vision site of this name would be the tower's own input."""
    for name in ("vision.projector", "vision.projector:0", "projector:1"):
        with pytest.raises(ValueError, match="there is one projector output, 'projector'"):
            Site.parse(name)


def test_a_range_that_runs_backwards_is_refused():
    with pytest.raises(ValueError, match="3-1"):
        parse_sites("resid_post:3-1", n_layers=4)


def test_site_needs_no_torch():
    """A store is read on machines without torch."""
    code = "import sys, hooks.site; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
