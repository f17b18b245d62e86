"""The data card (data/README.md) says what is in the files, and nothing that is not."""

import re
from pathlib import Path

from constclf_lib import data_path
from constclf_lib.lab import COLUMNS, SIZES, TEAMS, grammar, load_constitution, topics
from constclf_lib.lab.world import asks
from constclf_lib.recipes.manifest import STAGE_OF

CARD = (Path(__file__).resolve().parents[2] / "data" / "README.md").read_text(encoding="utf-8")


def section(name):
    return re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", CARD, re.M | re.S).group(1)


def first_cells(table):
    return [name for row in re.findall(r"^\| (`.+?) \|", table, re.M) for name in re.findall(r"`([^`]+)`", row)]


def test_columns_in_their_order():
    described = first_cells(section("Columns"))
    assert sorted(described) == sorted(COLUMNS)


def test_files_and_sizes():
    files = section("Files")
    for name, size in SIZES.items():
        assert re.search(rf"`lab/{name}.parquet` \| {size:,} ", files), name
    for name in first_cells(files):
        if name != "reference_results.json":  # made after everything else
            assert data_path(name).exists(), name
    laws = load_constitution()
    assert f"{len(laws.restricted)} restricted and {len(laws.permitted)} permitted rules" in files


def test_red_teams():
    teams = section("How it was made")
    for team in ("development", "sealed"):
        (named,) = re.findall(rf"{team}\s+team \((.*?)\)", teams, re.S)
        assert tuple(re.findall(r"`(\w+)`", named)) == tuple(name for name in TEAMS[team])


def test_two_test_wordings_in_three_hold_a_new_word():
    assert "Two test wordings in three hold a word that is in no row" in CARD
    phrases = [phrase for topic in topics() for phrase in asks(topic, "test")]
    known = {word for topic in topics() for phrase in asks(topic, "train") for word in phrase.split()}
    assert 0.62 < sum(not set(phrase.split()) <= known for phrase in phrases) / len(phrases) < 0.71


def test_registers_and_commands():
    assert set(re.search(r"who speaks: (.*?) \|", CARD).group(1).split(", ")) == set(grammar()["frames"])
    for stage in re.findall(r"--only (\w+)", CARD):
        assert stage in {stage for _, stage in STAGE_OF}
