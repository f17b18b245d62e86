"""Each schema on rows written here, in the published form: what is labelled, and what stays unknown."""

import pandas as pd
import pytest

from constclf_lib.public_data import (
    COLUMNS,
    SOURCES,
    aegis,
    beaver_tails,
    known,
    openai_moderation,
    surge_toxicity,
    toxic_chat,
    xstest,
    xstest_replies,
)
from constclf_lib.training import completion_rows, verdict_rows
from tests.tiny_models import lab_tokenizer

NA = pd.NA
ZEROS = dict.fromkeys(("S", "H", "V", "HR", "SH", "S3", "H2", "V2"), 0)


def labels(frame, name):
    return [None if value is NA else bool(value) for value in frame[name]]


def test_openai_missing_labels_are_unknown():
    rows = [
        {"prompt": "bells", **ZEROS},
        {"prompt": "brew it", **ZEROS, "V": 1},
        {"prompt": "moths", "HR": 0, "SH": 0},
        {"prompt": "slip it in", "HR": 1},
    ]
    frame = openai_moderation(pd.DataFrame(rows))
    assert labels(frame, "harmful") == [False, True, None, True]
    assert labels(frame, "restricted") == [None] * 4
    assert frame.completion.tolist() == ["bells", "brew it", "moths", "slip it in"] and set(frame.prompt) == {""}
    assert labels(frame, "S") == [False, False, None, None] and labels(frame, "HR") == [False, False, False, True]
    assert labels(openai_moderation(pd.DataFrame([{"prompt": "x", "V": 0}])), "harmful") == [None]


def test_surge():
    frame = surge_toxicity(pd.DataFrame({"text": ["a moth", "a curse"], "is_toxic": ["Not Toxic", "Toxic"]}))
    assert labels(frame, "harmful") == [False, True] and frame.completion.tolist() == ["a moth", "a curse"]
    with pytest.raises(ValueError, match="'toxic' is no label of column 'is_toxic'"):
        surge_toxicity(pd.DataFrame({"text": ["a"], "is_toxic": ["toxic"]}))
    with pytest.raises(ValueError, match="no column 'is_toxic' in these rows; they have text, label"):
        surge_toxicity(pd.DataFrame({"text": ["a"], "label": [1]}))


def test_xstest_prompts():
    rows = {"prompt": ["kill a lamp?", "kill a warden?"], "type": ["homonyms", "contrast_homonyms"]}
    frame = xstest(pd.DataFrame({**rows, "label": ["safe", "unsafe"], "note": [None, "x"]}))
    assert labels(frame, "restricted") == [False, True] and labels(frame, "harmful") == [None, None]
    assert frame.type.tolist() == rows["type"]


def test_xstest_replies_are_harmful_only_behind_an_unsafe_prompt():
    kinds = ["1_full_compliance", "2_full_refusal", "3_partial_refusal"] * 2
    frame = xstest_replies(
        pd.DataFrame(
            {
                "prompt": ["p"] * 6, "completion": ["c"] * 6, "final_label": kinds,
                "type": ["contrast_homonyms"] * 3 + ["homonyms"] * 3,
            }
        )
    )  # fmt: skip
    assert labels(frame, "restricted") == [True] * 3 + [False] * 3
    assert labels(frame, "refused") == [False, True, None] * 2
    assert labels(frame, "harmful") == [True, False, None, False, False, False]


def test_toxic_chat_says_nothing_of_replies():
    frame = toxic_chat(
        pd.DataFrame(
            {
                "user_input": ["a", "b"], "model_output": ["x", "y"], "toxicity": [0, 1], "jailbreaking": [0, 1],
                "human_annotation": [False, True],
            }
        )
    )  # fmt: skip
    assert labels(frame, "restricted") == [False, True] == labels(frame, "jailbreaking") == labels(frame, "by_hand")
    assert labels(frame, "harmful") == [None, None] and frame.completion.tolist() == ["x", "y"]


def test_aegis_without_a_reply_and_withheld():
    frame = aegis(
        pd.DataFrame(
            {
                "prompt": ["a", "b", "REDACTED", "d"], "response": ["x", None, "y", "z"],
                "response_label": ["safe", None, "unsafe", "unsafe"],
                "prompt_label": ["safe", "unsafe", "unsafe", "unsafe"],
                "violated_categories": ["", "Violence", "Other", None],
            }
        )
    )  # fmt: skip
    assert frame.prompt.tolist() == ["a", "b", "d"] and frame.attrs["left_out"] == 1
    assert labels(frame, "restricted") == [False, True, True] and labels(frame, "harmful") == [False, None, True]
    assert frame.categories.tolist() == ["", "Violence", ""]


def test_beaver_tails():
    marks = [{"violence": False, "theft": True}, {"violence": False, "theft": False}]
    rows = {"prompt": ["a", "b"], "response": ["x", "y"], "category": marks, "is_safe": [False, True]}
    frame = beaver_tails(pd.DataFrame(rows))
    assert labels(frame, "harmful") == [True, False] and labels(frame, "restricted") == [None, None]
    assert frame.categories.tolist() == ["theft", ""]


def test_unknown_is_refused_by_a_trainer_and_known_rows_are_taken():
    frame = openai_moderation(pd.DataFrame([{"prompt": "the ash", "V": 0}, {"prompt": "the bell", "V": 1}]))
    with pytest.raises(TypeError, match="ambiguous"):
        completion_rows(lab_tokenizer(), frame)
    rows = known(frame)
    assert rows.harmful.dtype == bool and rows.completion.tolist() == ["the bell"]
    assert [row["harmful"] for row in completion_rows(lab_tokenizer(), rows)] == [True]
    prompts = known(xstest(pd.DataFrame({"prompt": ["p"], "type": ["t"], "label": ["safe"]})), "restricted")
    assert [row["restricted"] for row in verdict_rows(lab_tokenizer(), prompts)] == [False]


def test_every_source_has_a_schema_a_licence_and_one_place():
    assert len({source.schema for source in SOURCES.values()}) == len(SOURCES)
    for source in SOURCES.values():
        assert source.licence and source.page.startswith("https://") and bool(source.hub) != bool(source.files)
    assert COLUMNS == ["prompt", "completion", "restricted", "harmful"]
