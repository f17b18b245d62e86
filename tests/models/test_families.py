"""The table of docs/backbones.md is what the library does: a dozen families of each verdict, judged again."""

import json

import pytest
import transformers

from tests.conftest import ROOT
from tools.backbone_families import ALONE, BATCHES, FAMILIES, REFUSED, WRONG, judge, table

STORED = json.loads((ROOT / "docs" / "backbones.json").read_text(encoding="utf-8"))


def quickest(verdict: str, count: int = 12) -> list[str]:
    rows = [row for row in STORED["families"] if row["verdict"] == verdict]
    return [row["family"] for row in sorted(rows, key=lambda row: row["seconds"])[:count]]


def test_no_family_is_silently_wrong_and_none_is_left_out():
    assert [row["family"] for row in STORED["families"] if row["verdict"] == WRONG] == []
    if STORED["transformers"] == transformers.__version__:
        assert {row["family"] for row in STORED["families"]} == set(FAMILIES)
    for verdict in (BATCHES, ALONE, REFUSED):
        assert len(quickest(verdict)) == 12


def test_the_page_shows_the_stored_table():
    assert (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8") == table(STORED)


@pytest.mark.parametrize("verdict", [BATCHES, ALONE, REFUSED])
def test_a_dozen_families_are_judged_as_stored(verdict):
    now = {family: judge(family)["verdict"] for family in quickest(verdict) if family in FAMILIES}
    if STORED["transformers"] == transformers.__version__:
        assert now == dict.fromkeys(now, verdict)
    assert WRONG not in now.values()
