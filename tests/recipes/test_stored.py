"""Measured figures on disk: readable by people, equal when read back."""

import json

from constclf_lib.evaluation import rate_of
from constclf_lib.recipes.stored import as_text, merge_results


def test_what_fits_a_line_stands_on_one_and_all_of_it_comes_back(tmp_path):
    long = {"values": list(range(100)), "empty": {}, "none": None, "text": 'a "quoted" word', "deep": {"x": [[1], []]}}
    results = merge_results(tmp_path, second=long, first={"rate": rate_of([True] * 3 + [False])})
    text = (tmp_path / "reference_results.json").read_text(encoding="utf-8")
    assert json.loads(text) == results and text.endswith("}\n")
    assert ' "first": {"rate": {"interval": [0.3006, 0.9544], "n": 4, "value": 0.75}},\n' in text
    assert max(map(len, text.splitlines())) <= 140 and text.index('"first"') < text.index('"second"')


def test_only_containers_are_broken():
    word = "x" * 200
    assert as_text({"b": word, "a": 1}) == f'{{\n "a": 1,\n "b": "{word}"\n}}'
