"""The committed benchmark results: complete, within the plan, and the same as in the README. No test times anything."""

import json
from pathlib import Path

import pytest

from benchmarks import streaming, training

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def stored():
    return {name: json.loads(made.RESULTS.read_text()) for name, made in (("s", streaming), ("t", training))}


def test_streaming_results_hold_every_length_and_every_number_of_streams(stored):
    for device in {"cpu", "cuda"} & set(stored["s"]):
        measured = stored["s"][device]
        assert [row["tokens"] for row in measured["per_token_us"]] == list(streaming.LENGTHS)
        assert [row["streams"] for row in measured["streams_us"]] == list(streaming.STREAMS)
        ratios = measured["ratios"]
        first, last = measured["per_token_us"][0]["scorer"], measured["per_token_us"][-1]["scorer"]
        assert ratios["scorer_1024_over_64"] == pytest.approx(last / first)
    assert "cpu" in stored["s"] and stored["s"]["weights"] == stored["t"]["weights"] == "lab"


def test_the_stored_ratios_keep_the_plan(stored):
    ratios = stored["s"]["cpu"]["ratios"]
    assert ratios["scorer_1024_over_64"] <= 1.5
    assert ratios["value_head_over_backbone"] <= 0.03
    assert ratios["one_by_one_over_batched"]["64"] > 1


def test_the_readme_shows_the_stored_benchmarks(stored):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert streaming.table("CPU", stored["s"]["cpu"]) in readme
    assert f"{stored['t']['output_classifier_over_plain']:.2f} times the speed" in readme
