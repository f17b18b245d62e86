"""The committed measurements of the endpoint: what the docs show is what is stored. No test times anything."""

import json
from pathlib import Path

import pytest

from benchmarks import endpoint, joined_turns

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("made, page", [(joined_turns, "threat-model.md"), (endpoint, "deployment.md")])
def test_the_docs_show_the_stored_table(made, page):
    if not made.RESULTS.exists():
        pytest.skip(f"{made.RESULTS.name} is not measured yet")
    assert made.table(json.loads(made.RESULTS.read_text())) in (DOCS / page).read_text(encoding="utf-8")


def test_garaks_figures_are_the_stored_ones():
    stored = json.loads((endpoint.RESULTS.parent / "garak_emberfall.json").read_text())
    words = " ".join((DOCS / "deployment.md").read_text(encoding="utf-8").split())
    assert f"garak {stored['garak']} on {stored['guarded']['know_how']['n']} development attacks" in words
    for rate in (stored["unguarded"]["know_how"], stored["guarded"]["know_how"], stored["guarded"]["no_refusal_seen"]):
        low, high = rate["interval"]
        assert f"{rate['value']:.1%}" in words and f"({low:.1%} to {high:.1%})" in words
    assert stored["unguarded"]["no_refusal_seen"]["value"] == 1


def test_joined_turns_control_reads_the_same_text():
    if not joined_turns.RESULTS.exists():
        pytest.skip("not measured yet")
    first = json.loads(joined_turns.RESULTS.read_text())["rows"][0]
    assert first["turn"] == "1"
    assert all(added["value"] == 0 for added in first["added"].values())  # one message: alone is joined
