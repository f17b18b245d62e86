"""The sealed log only grows and knows its models; the sample shows any text without breaking."""

import json
import re

import pandas as pd
import pytest

from constclf_lib.evaluation import Estimate
from constclf_lib.recipes.sealed import (
    AlreadyMeasured,
    already_measured,
    draw_seed,
    log_sealed,
    model_checksums,
    open_seal,
    write_released_sample,
)

RATE = Estimate(0.01, 0.001, 0.0356789, 200)


@pytest.fixture
def data(tmp_path):
    for name in ("assistant", "output_classifier"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.safetensors").write_bytes(name.encode())
        (tmp_path / "models" / name / "README.md").write_text("a card")
    (tmp_path / "models" / "thresholds.json").write_text('{"input": 0.5}')
    (tmp_path / "reference_results.json").write_text('{"headline": {"x": 1}, "sealed_log": [], "z": [1, 2]}')
    return tmp_path


def results(data):
    return json.loads((data / "reference_results.json").read_text(encoding="utf-8"))


def log(data):
    return results(data)["sealed_log"]


def retrain(data, content=b"other weights"):
    (data / "models" / "assistant" / "model.safetensors").write_bytes(content)


# --- checksums and the seed


def test_models_and_thresholds_are_what_is_measured_and_cards_are_not(data):
    found = model_checksums(data)
    assert set(found) == {
        "models/assistant/model.safetensors",
        "models/output_classifier/model.safetensors",
        "models/thresholds.json",
    }
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in found.values())
    (data / "models" / "assistant" / "README.md").write_text("another card")
    (data / "lab").mkdir()
    (data / "lab" / "test.parquet").write_bytes(b"rows")
    assert model_checksums(data) == found


def test_the_seed_is_fixed_when_the_models_are_and_only_then(data):
    found = model_checksums(data)
    seed = draw_seed(found)
    assert seed == draw_seed(dict(reversed(found.items()))) and 0 <= seed < 2**32
    (data / "models" / "thresholds.json").write_text('{"input": 0.51}')
    after_calibration = draw_seed(model_checksums(data))
    retrain(data)
    assert len({seed, after_calibration, draw_seed(model_checksums(data))}) == 3


def test_without_thresholds_the_models_are_not_finished(data):
    (data / "models" / "thresholds.json").unlink()
    with pytest.raises(FileNotFoundError, match="fix the models first"):
        open_seal(data)


# --- the log


def test_a_measurement_is_on_record_from_its_first_moment(data):
    assert not already_measured(data)
    seed = open_seal(data, date="2026-12-01")
    assert seed == draw_seed(model_checksums(data)) and already_measured(data)
    log_sealed(data, {"attack_success_guarded": RATE, "by": [{"kind": RATE}]}, seed, date="2026-12-02")
    opened, measured = log(data)
    assert opened == {
        "event": "opened",
        "date": "2026-12-01",
        "checksums": model_checksums(data),
        "seed": seed,
        "why": "",
    }
    stored = {"value": 0.01, "interval": [0.001, 0.0357], "n": 200}
    figures = {"attack_success_guarded": stored, "by": [{"kind": stored}]}
    assert measured == opened | {"event": "measured", "date": "2026-12-02", "figures": figures}
    assert results(data)["headline"] == {"x": 1} and results(data)["z"] == [1, 2]


def test_a_second_time_needs_a_reason_and_the_reason_is_logged(data):
    log_sealed(data, {"rate": 0}, open_seal(data, date="2026-12-01"))
    for why in ("", "  "):
        with pytest.raises(AlreadyMeasured, match="2026-12-01.*say why"):
            open_seal(data, why)
    assert len(log(data)) == 2
    seed = open_seal(data, "the grader had a bug")
    log_sealed(data, {"rate": 1}, seed)
    assert [entry["why"] for entry in log(data)] == ["", "", "the grader had a bug", "the grader had a bug"]
    assert [entry.get("figures") for entry in log(data)] == [None, {"rate": 0}, None, {"rate": 1}]


def test_a_look_whose_figures_were_dropped_counts_as_a_look(data):
    open_seal(data)
    with pytest.raises(AlreadyMeasured):
        open_seal(data)


def test_entries_are_never_rewritten(data):
    first = {"checksums": {"models/old": "x"}, "date": "2025-01-01", "note": ["as", "it", "was"]}
    (data / "reference_results.json").write_text(json.dumps({"sealed_log": [first]}))
    history = []
    for step in range(3):
        retrain(data, bytes([step]))
        log_sealed(data, {"rate": step}, open_seal(data))
        assert log(data)[: len(history)] == history
        history = log(data)
    assert history[0] == first and len(history) == 7


def test_other_models_are_another_measurement(data):
    log_sealed(data, {}, open_seal(data))
    retrain(data)
    assert not already_measured(data)
    open_seal(data)
    assert log(data)[0]["seed"] != log(data)[2]["seed"]


def test_figures_belong_to_the_models_that_stand_there(data):
    seed = open_seal(data)
    with pytest.raises(ValueError, match="seed 7 does not belong"):
        log_sealed(data, {}, 7)
    retrain(data)
    with pytest.raises(ValueError, match="they changed"):
        log_sealed(data, {}, seed)
    assert len(log(data)) == 1


def test_one_opening_takes_one_set_of_figures(data):
    with pytest.raises(ValueError, match="not open"):
        log_sealed(data, {}, draw_seed(model_checksums(data)))
    seed = open_seal(data)
    log_sealed(data, {"rate": 1}, seed)
    with pytest.raises(ValueError, match="not open"):
        log_sealed(data, {"rate": 0}, seed)
    assert [entry["event"] for entry in log(data)] == ["opened", "measured"]


def test_a_log_that_is_no_list_is_left_alone(data):
    (data / "reference_results.json").write_text('{"sealed_log": {}}')
    with pytest.raises(ValueError, match="no list"):
        open_seal(data)
    assert results(data) == {"sealed_log": {}}


def test_a_first_results_file_is_made(data):
    (data / "reference_results.json").unlink()
    open_seal(data)
    assert list(results(data)) == ["sealed_log"] and re.match(r"20\d\d-\d\d-\d\dT.*\+00:00$", log(data)[0]["date"])


# --- the sample


def rows(sizes: dict[str, int], text: str = "released") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "stratum": stratum,
                "prompt": f"prompt {stratum} {i}",
                "released_text": f"{text} {stratum} {i}",
                "status": "halted_output",
                "facts_held": ("a copper bowl", "at dusk"),
                "decoys_held": ((), ("two bells",), ()),
            }
            for stratum, size in sizes.items()
            for i in range(size)
        ]
    )


def drawn(page: str) -> dict[str, int]:
    return {name: len(re.findall(f"^prompt {name} ", page, re.M)) for name in ("large", "small", "rare")}


def test_the_sample_is_even_over_strata_seeded_and_without_repeats(tmp_path):
    given, pages = rows({"large": 500, "small": 40, "rare": 3}), []
    for seed in (0, 0, 1):
        write_released_sample(tmp_path / "sample.md", given, count=60, seed=seed)
        pages.append((tmp_path / "sample.md").read_text(encoding="utf-8"))
    assert pages[0] == pages[1] != pages[2]
    assert drawn(pages[0]) == {"large": 29, "small": 28, "rare": 3}
    prompts = re.findall("^prompt .*", pages[0], re.M)
    assert len(set(prompts)) == len(prompts) == 60
    assert "60 of 543 attempts" in pages[0] and "## `rare`: 3 of 3" in pages[0]


def test_a_row_shows_all_that_is_needed_to_judge_it(tmp_path):
    write_released_sample(tmp_path / "sample.md", rows({"large": 1}), count=60)
    page = (tmp_path / "sample.md").read_text(encoding="utf-8")
    assert "### 1. `halted_output`" in page and "- facts held: 2 (`a copper bowl`, `at dusk`)" in page
    assert "- best of 3 decoys: 1 (`two bells`); 0.33 facts on average" in page
    assert "```text\nprompt large 0\n```" in page and "```text\nreleased large 0\n```" in page


HOSTILE = [
    "```\n# a heading of its own",
    "`````\nlonger ```` fences",
    "~~~\n<script>alert(1)</script>\n\n---",
    "form\x0cfeed, nul\x00, carriage\rreturn, dos\r\nline",
    "right-to-left \u202eoverride, zero\u200bwidth, next\u2028line",
    "",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_breaks_out_of_its_block(tmp_path, text):
    given = rows({"a": 1, "b`c\n# d": 1}).assign(prompt=text, released_text=text, status=text, facts_held=[[text]] * 2)
    write_released_sample(tmp_path / "sample.md", given)
    page = (tmp_path / "sample.md").read_bytes().decode("utf-8")
    assert all(c.isprintable() or c == "\n" for c in page)
    outside, fence, blocks = [], None, 0
    for line in page.split("\n"):
        if fence is None and (opening := re.fullmatch("(`{3,})text", line)):
            fence, blocks = opening.group(1), blocks + 1
        elif fence is not None and re.fullmatch(f" {{0,3}}{fence}`*\\s*", line):
            fence = None
        elif fence is None:
            outside.append(line)
    assert fence is None and blocks == (4 if text else 0)
    own = re.compile(
        r"# Released texts|2 of 2 |## `|### \d+\. [`*]|- facts held|- best of|Prompt:|Released:|\*nothing\*|$"
    )
    assert all(own.match(line) for line in outside), outside


def test_a_text_stands_there_letter_by_letter(tmp_path):
    text = "Take `seven` drops,\n  <b>then</b> *stir* | wait\\n & rest"
    write_released_sample(tmp_path / "sample.md", rows({"a": 1}).assign(released_text=text))
    assert f"```text\n{text}\n```" in (tmp_path / "sample.md").read_text(encoding="utf-8")


def test_what_cannot_be_sampled_is_said(tmp_path):
    given = rows({"a": 2})
    for wrong, count in ((given.drop(columns="status"), 5), (given.iloc[:0], 5), (given, 0)):
        with pytest.raises(ValueError, match="a sample needs"):
            write_released_sample(tmp_path / "sample.md", wrong, count)
    assert not (tmp_path / "sample.md").exists()
