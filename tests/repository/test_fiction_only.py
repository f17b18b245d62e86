"""The lab is fiction: no real agent, material, toxin, explosive or precursor is named in any tracked file or stored
exchange.

The names are kept as hashes, so that this repository does not hold the list either. To add one:
python tests/repository/test_fiction_only.py "the name". Words are compared alone and in pairs, in lower case.
Pictures and the pieces of a tokenizer's vocabulary are not words and are left out.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = {".py", ".md", ".ipynb", ".yaml", ".yml", ".toml", ".txt", ".cfg", ".json", ".jsonl", ".csv", ".svg", ""}
PIECES = {"tokenizer.json", "vocab.json"}


def hashed(name: str) -> str:
    return hashlib.sha256(name.lower().encode()).hexdigest()[:12]


FORBIDDEN = set(
    """
    0025fc65f40e 0148339d569c 01c06291df2a 023dfb3b81fc 04b746ed7623 04fc8bef936d 073f3c2bbe19 0af1cb1fdafc
    0d551e3b17d4 0d96c6e817a7 0d9c598c628c 0f1b2b562b74 107523458b18 10aed36a0261 122497c76593 127b8b588447
    1310170d24f6 134f88cb48f1 15a69475395f 15ef509675b8 1992578fed49 1a252202f7ea 1d17368fa9ce 1e610639e38c
    210995fedaa1 22b621f5df04 232affd0b905 25ebabb26897 298de0588a5b 2b4002fbef34 2c16bdaa70c1 2dca42ea50f7
    2f1c8ea855be 32cc57600213 33855b66548f 33d993d2211c 3528c66f67d2 35f975ae01fd 3814a7738700 3918e6d38f0f
    39c7ad800c57 3a9c3f87986e 3b631f287641 3b876801a00f 3cced79bfa45 3dfc7ca36107 4327c04b9890 4336f265177e
    4374e5bff2f7 44e2b530351d 462b5cb74c42 47c2242dcab8 4ab2fb51704e 4e3ae8c09d36 4fee2bcbea56 520cb8933e4b
    5301afd75ab1 53a489c2d7b7 545009bcfef5 555a8a6ba3f9 5a02a45569ef 5a16a2337c05 5b0e2cc33ab9 5c67225697c5
    5d0041a74cf7 5f6b813514a4 5ff3d7d88faf 61801799f956 63a460507e37 647e3ef676bc 65705c713c03 6699ce47d492
    6716ec512102 6b842fa62e8c 6bb3f651690f 6cea0f40e0ee 6ff5b47d5ebf 72912348194f 74f8e3722a3f 76bef0350116
    77b0ba396769 79bf1380cf90 7ae90083a1e7 7c5b6cbc4b7d 8103bc773c90 818396da204c 81b50d0967d9 85fa8235410a
    87595db4d28b 8b82d3d54e12 8cd58d4a73c6 8cf5ab285db0 8dd7d7dd787b 8ef8108bab4d 8fff0793b620 9669a25f0b1d
    96bc3efe34f1 97f5f80ed05f 97f9abfd4d9a 99859e350a5a 9c0a3e76e121 9db0b07fc9ac 9e0cc3ac15e8 a062366b4de7
    a24e9c0d4ea8 a451b959342f a56b33804d31 a811a04dd863 a8cc0f2cf777 b46825e3b185 b5eddf9cf0eb bb30a2ccdc81
    be8fa5417dfc c0de7696945b c2c0390f5af2 c4511ebedd61 c66546290c92 cb726a505450 cb82af82fa83 ccf86a1fd640
    cd02e1879e75 d2222bbb8509 d57d62295d41 d8061052b594 d982e6a7ff42 db3736630939 dc0dd5293e6d dfa1e8acab87
    dfc5a035895c e209837cb5a5 e2be4bedf28b e46b26fcf420 e75e13acd6db e7e98bc781c2 e90dfa8b1e73 eb9b00fee605
    ebded706aec2 ee6f01a92dd8 f179c289baaf f344cf0ce100 f55cd87237a6 f923a3671293 fb8d793c57c8 fe4befb633f6
    ffd500f27680
""".split()
)


def names_in(text: str) -> set[str]:
    """Every word and every pair of neighbouring words whose hash is on the list."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {name for name in {*words, *map(" ".join, zip(words, words[1:], strict=False))} if hashed(name) in FORBIDDEN}


def text_of(path: Path) -> str:
    """The words of a file: all of it, a notebook without its pictures, the distinct strings of a table."""
    if path.suffix == ".parquet":
        table = parquet.read_table(path)
        return "\n".join(str(value) for column in table.columns for value in strings(column))
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".ipynb":
        return re.sub(r'"image/\w+": "[^"]*"', "", text).replace("\\n", " ")
    if path.suffix == ".json":
        return json.dumps(json.loads(text), ensure_ascii=False).replace("\\n", " ")
    return text


def strings(column):
    while str(column.type).startswith(("list", "large_list")):
        column = column.combine_chunks().flatten()
    return column.unique().to_pylist() if "string" in str(column.type) else []


def test_nothing_real_is_named(files):
    found = {}
    for path in files:
        if path.suffix == ".parquet" or (path.suffix in TEXT and path.name not in PIECES):
            names = names_in(text_of(path))
            if names:
                found[str(path.relative_to(ROOT))] = sorted(names)
    assert not found


@pytest.mark.parametrize("text", ["A Zzyzx-Agent 7, sold by night", "the ZZYZX agent", "agent\nzzyzx"])
def test_a_listed_name_is_found_in_any_dress(text, monkeypatch):
    monkeypatch.setitem(globals(), "FORBIDDEN", {hashed("zzyzx"), hashed("agent 7")})
    assert "zzyzx" in names_in(text)
    assert ("agent 7" in names_in(text)) == ("7" in text)


def test_words_inside_words_are_not_found(monkeypatch):
    monkeypatch.setitem(globals(), "FORBIDDEN", {hashed("ash")})
    assert names_in("ashbane and ash") == {"ash"} and not names_in("ashbane")


def test_tables_and_notebooks_are_read(tmp_path):
    import pandas as pd

    table = tmp_path / "t.parquet"
    pd.DataFrame({"a": ["one", "two"], "b": [["three"], ["four", "five"]], "n": [1, 2]}).to_parquet(table)
    assert set(text_of(table).split()) == {"one", "two", "three", "four", "five"}
    notebook = tmp_path / "n.ipynb"
    notebook.write_text('{"source": ["first\\nsecond"], "image/png": "third/fourth"}', encoding="utf-8")
    assert "second" in text_of(notebook).split('"')[3].split() and "third" not in text_of(notebook)


if __name__ == "__main__":
    print(*map(hashed, sys.argv[1:]))
