"""Reading by path and by name. Nothing is fetched: the one address that is asked lies on this disk."""

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from constclf_lib.public_data import SOURCES, load_public

ROOT = Path(__file__).resolve().parents[2]
CSV = "text,is_toxic\nNone,Not Toxic\nthe ash,Toxic\n"


def test_csv_jsonl_and_gzip(tmp_path):
    (tmp_path / "t.csv").write_text("\ufeff" + CSV, encoding="utf-8")  # as spreadsheets write it
    frame = load_public("surge_toxicity", tmp_path / "t.csv")
    assert frame.completion.tolist() == ["None", "the ash"] and frame.attrs["source"] == str(tmp_path / "t.csv")
    with gzip.open(tmp_path / "s.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({"prompt": "12", "V": 1}) + "\n" + json.dumps({"prompt": "2020-01-01", "HR": 0}) + "\n")
    frame = load_public("openai_moderation", tmp_path / "s.jsonl.gz")
    assert frame.completion.tolist() == ["12", "2020-01-01"]
    assert frame.harmful[0] and frame.harmful.isna().tolist() == [False, True]


def test_a_folder_is_read_file_by_file(tmp_path):
    head = "id,type,prompt,completion,final_label\n"
    for name, label in (("b", "2_full_refusal"), ("a", "1_full_compliance")):
        (tmp_path / f"{name}.csv").write_text(f"{head}1,contrast_x,p,{name},{label}\n", encoding="utf-8")
    (tmp_path / "LICENSE").write_text("x")
    frame = load_public("xstest_replies", tmp_path)
    assert frame.completion.tolist() == ["a", "b"] and frame.harmful.tolist() == [True, False]
    assert frame.file.tolist() == ["a.csv", "b.csv"]


@pytest.mark.parametrize(
    "name, file, options, says",
    [
        ("nothing", None, {}, "'nothing' is none of openai_moderation, surge_toxicity"),
        ("surge_toxicity", "missing.csv", {}, "there is no"),
        ("surge_toxicity", "t.txt", {}, "is no file that is read here"),
        ("xstest", "t.csv", {}, "t.csv cannot be read as xstest: no column 'prompt'"),
        ("toxic_chat", None, {"split": "dev"}, "no split 'dev' in toxic_chat: it has train, test"),
        ("surge_toxicity", "t.csv", {"split": "test"}, "there is none to choose"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, file, options, says):
    for other in ("t.csv", "t.txt"):
        (tmp_path / other).write_text(CSV, encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        load_public(name, None if file is None else tmp_path / file, **options)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Surge's file as if it were published on this disk; returns (its path, a way to set what it should hash to)."""
    file = tmp_path / "published" / "toxicity_en.csv"
    file.parent.mkdir()
    file.write_text(CSV, encoding="utf-8")
    monkeypatch.setenv("CONSTCLF_CACHE", str(tmp_path / "kept"))

    def expect(checksum):
        source = replace(SOURCES["surge_toxicity"], files={file.as_uri(): checksum})
        monkeypatch.setitem(SOURCES, "surge_toxicity", source)

    expect(hashlib.sha256(file.read_bytes()).hexdigest())
    return file, expect


def test_by_name_it_is_fetched_once_compared_and_kept(published, tmp_path):
    file, expect = published
    frame = load_public("surge_toxicity")
    assert len(frame) == 2 and frame.attrs["source"] == SOURCES["surge_toxicity"].page
    assert [path.name for path in (tmp_path / "kept" / "surge_toxicity").iterdir()] == ["toxicity_en.csv"]
    file.unlink()
    assert len(load_public("surge_toxicity")) == 2  # from what was kept
    (tmp_path / "kept" / "surge_toxicity" / "toxicity_en.csv").write_text("cut short")
    with pytest.raises(OSError, match="cannot be reached .*take the file from https://github.com/surge-ai/toxicity"):
        load_public("surge_toxicity")


def test_another_file_at_the_address_is_refused(published, tmp_path):
    published[1]("0" * 64)
    with pytest.raises(OSError, match="is not the file that was looked at"):
        load_public("surge_toxicity")
    assert not (tmp_path / "kept").exists()


def test_a_hub_that_cannot_be_reached_is_told_with_what_to_do(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach 'lmsys/toxic-chat' on the Hub\nand more")

    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(OSError) as told:
        load_public("toxic_chat")
    said = str(told.value)
    assert "lmsys/toxic-chat cannot be had from the hub (ConnectionError: Couldn't reach" in said
    assert 'load_public("toxic_chat", "path/to/file")' in said and "\n" not in said


def test_the_hub_is_asked_for_the_right_rows(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []
    rows = {"prompt": ["a"], "response": ["x"], "is_safe": [True], "category": [{"theft": False}]}

    def answer(*what, **options):
        asked.append((what, options))
        return datasets.Dataset.from_dict(rows)

    monkeypatch.setattr(datasets, "load_dataset", answer)
    frame = load_public("beaver_tails", split="30k_test")
    assert asked == [(("PKU-Alignment/BeaverTails", None), {"split": "30k_test"})]
    assert frame.harmful.tolist() == [False] and frame.attrs["source"].endswith("BeaverTails, 30k_test")
    load_public("beaver_tails")
    assert asked[-1][1] == {"split": "330k_test"}


def test_the_table_has_every_source_with_its_licence():
    table = (ROOT / "docs" / "public_data.md").read_text(encoding="utf-8")
    for name, source in SOURCES.items():
        row = next(line for line in table.splitlines() if line.startswith(f"| `{name}` |"))
        assert source.page in row and source.licence in row
