"""nbval drops a badly written sanitise rule in silence; these tests do not."""

import re
from pathlib import Path

import pytest
from nbval.plugin import get_sanitize_patterns

TEXT = (Path(__file__).parents[1] / "nbval_sanitize.cfg").read_text(encoding="utf-8")
RULES = get_sanitize_patterns(TEXT)


def sanitised(text):
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    return text


def test_every_rule_is_loaded():
    assert len(RULES) == len(re.findall("^regex:", TEXT, re.M)) > 0


@pytest.mark.parametrize(
    "here, elsewhere",
    [
        ("ready: lab data found, device cpu", "ready: lab data found, device cuda:0"),
        ("took 12.3 s", "took 9 s"),
        ("80 ms per token", "7.25 ms per token"),
        ("<object at 0x7f116fc17ad0>", "<object at 0x7f0000000001>"),
    ],
)
def test_what_may_differ(here, elsewhere):
    assert sanitised(here) == sanitised(elsewhere)


@pytest.mark.parametrize(
    "here, elsewhere", [("5 seeds", "6 seeds"), ("FPR: 0.021", "FPR: 0.022"), ("5.2 ok", "5.2 not yet")]
)
def test_what_may_not(here, elsewhere):
    assert sanitised(here) != sanitised(elsewhere)
