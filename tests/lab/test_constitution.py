"""The constitution is checked when it is read, and mistakes are named with their line."""

import pytest

from constclf_lib.lab import load_constitution, system_prompt
from constclf_lib.lab.constitution import FAMILIES, HAZARDS


def test_the_lab_constitution():
    constitution = load_constitution()
    assert len(constitution.restricted) >= 12 and len(constitution.permitted) >= 16
    assert "requests about acquiring a hazard" in constitution["acquire"].text
    assert "establishing coded communication" in constitution["coded"].text
    assert all(rule.family in FAMILIES and set(rule.hazards) <= set(HAZARDS) for rule in constitution.rules)
    with pytest.raises(KeyError, match="the rules are"):
        constitution["nothing"]


GOOD = """\
restricted:
  - id: brew
    text: No brewing.
    family: craft
    hazards: [ashbane]
permitted:
  - id: aid
    text: Help.
    family: craft
    hazards: []
"""


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("family: craft\n    hazards: [ashbane]", "family: magic\n    hazards: [ashbane]"), 2, "family 'magic'"),
        (("hazards: [ashbane]", "hazards: [moondust]"), 2, "hazards must be"),
        (("hazards: [ashbane]", "hazards: []"), 2, "names no hazard"),
        (("text: Help.", "text: ''"), 7, "has no text"),
        (("id: aid", "id: brew"), 7, "occurs twice"),
        (("id: aid", "id: first aid"), 7, "must be one word"),
        (("    text: Help.\n", ""), 7, "exactly the fields"),
        (("permitted:", "allowed:"), 6, "unknown list"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, change, line, message):
    path = tmp_path / "constitution.yaml"
    path.write_text(GOOD, encoding="utf-8")
    load_constitution(path)
    path.write_text(GOOD.replace(*change), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        load_constitution(path)
    assert f"constitution.yaml:{line}:" in str(error.value)


def test_one_half_is_not_enough(tmp_path):
    path = tmp_path / "constitution.yaml"
    path.write_text(GOOD.split("permitted:")[0], encoding="utf-8")
    with pytest.raises(ValueError, match="both halves"):
        load_constitution(path)
    path.write_text("restricted: [\n", encoding="utf-8")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_constitution(path)


def test_the_writer_is_told_the_rule_and_its_side():
    constitution = load_constitution()
    restricted = system_prompt(constitution["produce"], "ashbane")
    permitted = system_prompt(constitution["cooking"])
    assert constitution["produce"].text in restricted and "ashbane" in restricted and "RESTRICTED" in restricted
    assert "PERMITTED" in permitted and "It concerns" not in permitted
    assert all("PROMPT:" in prompt and "COMPLETION:" in prompt for prompt in (restricted, permitted))
