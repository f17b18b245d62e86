"""From the columns of a public dataset to those of this library, one function per schema. Built for chapter 11.

Every function takes the frame as it was published and returns one with `COLUMNS` and, after them, labels that the
dataset has beside. `restricted` is the label of the prompt (an input classifier's), `harmful` that of the completion
(an output classifier's); both are pandas' nullable booleans, and <NA> means that nobody said. Nothing is guessed: what
is not labelled is unknown, not harmless. A dataset of mere texts puts them into `completion`.

What it deliberately does not do: read files (`sources.py`), balance, split, clean. Raises ValueError, naming it, for a
column that is missing or a label that is not one of the schema's.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

COLUMNS = ["prompt", "completion", "restricted", "harmful"]
OPENAI_LABELS = ("S", "H", "V", "HR", "SH", "S3", "H2", "V2")
_YES_NO = {1: True, 0: False}  # which are True and False, too


def openai_moderation(rows: pd.DataFrame) -> pd.DataFrame:
    """OpenAI's moderation evaluation set (arXiv 2208.03274): texts with eight labels, any of which may be missing.

    harmful: True if a label is 1, False if all eight are 0, else unknown (most papers count unknown as 0; `fillna`
    does that, in sight of the reader). The labels stand beside under their own names.
    """
    _need(rows, "prompt")
    labels = pd.DataFrame(index=rows.index)
    for name in OPENAI_LABELS:
        column = rows[name] if name in rows else pd.Series(pd.NA, rows.index, dtype="object")
        labels[name] = _mapped(column, _YES_NO, name)
    harmful = pd.Series(pd.NA, rows.index, dtype="boolean")
    harmful[(~labels).fillna(False).all(axis=1)] = False  # ~ leaves <NA> as it is
    harmful[labels.fillna(False).any(axis=1)] = True
    return _frame(rows, completion=rows["prompt"], harmful=harmful, beside=labels)


def surge_toxicity(rows: pd.DataFrame) -> pd.DataFrame:
    """Surge AI's toxicity sample: comments from social media. harmful: the people who were asked found it toxic."""
    _need(rows, "text", "is_toxic")
    harmful = _mapped(rows["is_toxic"], {"Toxic": True, "Not Toxic": False}, "is_toxic")
    return _frame(rows, completion=rows["text"], harmful=harmful)


def xstest(rows: pd.DataFrame) -> pd.DataFrame:
    """XSTest's prompts (arXiv 2308.01263): safe ones that sound dangerous beside unsafe ones of the same shape.

    restricted: the prompt's label is "unsafe". `type` (of prompt) stands beside.
    """
    _need(rows, "prompt", "type", "label")
    restricted = _mapped(rows["label"], {"unsafe": True, "safe": False}, "label")
    return _frame(rows, prompt=rows["prompt"], restricted=restricted, beside=rows[["type"]])


def xstest_replies(rows: pd.DataFrame) -> pd.DataFrame:
    """Replies of a model to XSTest's prompts, which people called compliance, refusal or partial refusal.

    restricted: the prompt's type begins with "contrast_". refused: True for a full refusal, False for full compliance,
    unknown for a partial one. harmful is inferred, nobody labelled it: a reply that fully complies with an unsafe
    prompt; not harmful: a full refusal, and every reply to a safe prompt; unknown: a partial refusal of an unsafe one.
    """
    _need(rows, "prompt", "completion", "type", "final_label")
    restricted = rows["type"].astype(str).str.startswith("contrast_").astype("boolean")
    verdicts = {"1_full_compliance": False, "2_full_refusal": True, "3_partial_refusal": pd.NA}
    refused = _mapped(rows["final_label"], verdicts, "final_label")
    harmful = (~refused).mask(~restricted, False)
    beside = pd.DataFrame({"type": rows["type"], "refused": refused})
    return _frame(rows, rows["prompt"], rows["completion"], restricted, harmful, beside)


def toxic_chat(rows: pd.DataFrame) -> pd.DataFrame:
    """ToxicChat (arXiv 2310.17389): what users wrote to a demo. restricted: `toxicity`; jailbreaking stands beside.

    Nobody labelled the replies: harmful is unknown. by_hand: a person looked at the row; the others were passed as
    harmless by a model that had been checked.
    """
    _need(rows, "user_input", "model_output", "toxicity", "jailbreaking", "human_annotation")
    beside = pd.DataFrame(
        {
            "jailbreaking": _mapped(rows["jailbreaking"], _YES_NO, "jailbreaking"),
            "by_hand": _mapped(rows["human_annotation"], {**_YES_NO, "True": True, "False": False}, "human_annotation"),
        }
    )
    restricted = _mapped(rows["toxicity"], _YES_NO, "toxicity")
    return _frame(rows, rows["user_input"], rows["model_output"], restricted, beside=beside)


def aegis(rows: pd.DataFrame) -> pd.DataFrame:
    """Aegis AI Content Safety Dataset 2.0: prompts, many with a reply, both labelled safe or unsafe.

    A row without a reply has an empty completion whose label is unknown. Rows whose prompt is withheld ("REDACTED")
    cannot be read and are left out; `attrs["left_out"]` counts them. categories: those that were violated.
    """
    _need(rows, "prompt", "response", "prompt_label", "response_label")
    withheld = rows["prompt"].astype(str).str.strip().eq("REDACTED")
    rows = rows[~withheld]
    names = {"safe": False, "unsafe": True}
    restricted = _mapped(rows["prompt_label"], names, "prompt_label")
    harmful = _mapped(rows["response_label"].replace("", pd.NA), names, "response_label")
    categories = rows["violated_categories"] if "violated_categories" in rows else ""
    beside = pd.DataFrame({"categories": categories}, index=rows.index).fillna("")
    found = _frame(rows, rows["prompt"], rows["response"], restricted, harmful, beside)
    found["harmful"] = found["harmful"].mask(found["completion"] == "", pd.NA)
    found.attrs["left_out"] = int(withheld.sum())
    return found


def beaver_tails(rows: pd.DataFrame) -> pd.DataFrame:
    """BeaverTails (arXiv 2307.04657): questions and replies. harmful: the pair is not `is_safe`; the question alone was
    not labelled. categories: those that were marked.
    """
    _need(rows, "prompt", "response", "is_safe")
    harmful = ~_mapped(rows["is_safe"], _YES_NO, "is_safe")
    marked = rows["category"] if "category" in rows else pd.Series("", rows.index)
    names = [", ".join(k for k, on in c.items() if on) if isinstance(c, Mapping) else str(c) for c in marked]
    beside = pd.DataFrame({"categories": names}, index=rows.index)
    return _frame(rows, rows["prompt"], rows["response"], harmful=harmful, beside=beside)


def _need(rows: pd.DataFrame, *columns: str) -> None:
    if missing := [name for name in columns if name not in rows]:
        raise ValueError(f"no column {missing[0]!r} in these rows; they have {', '.join(map(str, rows.columns))}")


def _mapped(column: pd.Series, names: Mapping, name: str) -> pd.Series:
    """Nullable booleans for what `names` calls them; what is missing stays missing."""
    found = column.map(lambda value: pd.NA if _is_missing(value) else names.get(value, value))
    if odd := [value for value in found if not (_is_missing(value) or isinstance(value, bool))]:
        raise ValueError(f"{odd[0]!r} is no label of column {name!r}; it knows {', '.join(map(repr, names))}")
    return found.astype("boolean")


def _is_missing(value) -> bool:
    return value is None or value is pd.NA or value != value


def _frame(rows, prompt="", completion="", restricted=None, harmful=None, beside=None) -> pd.DataFrame:
    unknown = pd.Series(pd.NA, rows.index, dtype="boolean")
    found = pd.DataFrame(
        {
            "prompt": _texts(prompt, rows.index),
            "completion": _texts(completion, rows.index),
            "restricted": unknown if restricted is None else restricted,
            "harmful": unknown if harmful is None else harmful,
        }
    )
    found = found if beside is None else pd.concat([found, beside], axis=1)
    return found.reset_index(drop=True)


def _texts(values, index) -> pd.Series:
    return pd.Series(values, index, dtype="object").fillna("").astype(str)
