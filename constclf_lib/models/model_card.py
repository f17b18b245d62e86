"""The model card of a saved classifier: what is known about it, and plainly what is not.

Deliberately not here: figures. Nothing is measured at a save; whoever measured passes a card of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_WHAT = {
    "input": "An input classifier: a causal language model whose next token after a prompt is its verdict on it.",
    "exchange": "An output classifier that reads the prompt first: it scores every token beside its question.",
    "output": "An output classifier: a causal language model with a second head that scores every token of a reply.",
}
_UNKNOWN = "unknown: nobody said when it was saved"


def default_card(classifier, facts: Mapping[str, object] | None = None) -> str:
    """A card in Markdown for a classifier about which nobody wrote anything. facts: what is known of its training
    (data, steps, seed ...), a row each; what is missing there is named as unknown.
    """
    known = {"data": _UNKNOWN, "seed": _UNKNOWN, **(facts or {})}
    rows = "\n".join(f"| {name} | {value} |" for name, value in known.items())
    name = type(classifier).__name__
    return f"""---
library_name: transformers
tags: [constitutional-classifier]
---

# {name}

{_WHAT.get(classifier.kind, "A classifier.")} Load it with `constclf_lib.models.{name}.from_pretrained(folder)`.

| | |
|---|---|
| base | {_base(classifier.model)} |
| tokenizer | {classifier.fingerprint or "none was saved"} |
{rows}
| figures | unknown: error rates were not passed when it was saved |
| licence | unknown: that of the base and of the data apply |

## Limits

This card was written by the save itself. How often it errs, on which texts, and at which threshold it may be used has
to be measured on texts like those it will meet; until then its scores are no ground for releasing or withholding
anything.
"""


def _base(model) -> str:
    """Architecture and, where there is one, the name; of a folder only its last part, since paths tell of machines."""
    architecture = f"{type(model).__name__}, {sum(p.numel() for p in model.parameters()):,} parameters"
    name = getattr(model, "name_or_path", "")
    if not name:
        return f"{architecture}, made in memory"
    return f"{architecture}, from `{Path(name).name if Path(name).exists() else name}`"
