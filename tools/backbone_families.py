"""Which causal LM families can stand behind a bodyguard? Run: python -m tools.backbone_families [family ...]

What it does: builds every family of the installed transformers tiny, with random weights and with windows and chunks of
a few tokens; lets the library judge it (models/self_check.py); and then, on its own, compares every way of reading with
one full pass, 30 tokens long. Each family runs in a process of its own with a time limit. Writes docs/backbones.json
and the table docs/backbones.md; with families named, prints only those.

What it deliberately does not do: load weights, or repeat the self-check: nothing of it is used in the comparison.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import textwrap
import time
import warnings
from datetime import date
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from constclf_lib.errors import ClassifierError
from constclf_lib.models import OutputClassifier
from constclf_lib.streaming import StreamingScorer, score_completions
from tools.tiny_configs import HEADS, SIZES, SPECIAL

DOCS = Path(__file__).resolve().parents[1] / "docs"
FAMILIES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
BATCHES, ALONE, REFUSED, NOT_BUILT, WRONG = "streams and batches", "streams alone", "refused", "not built", "WRONG"
SECONDS, SAME = 120, 5e-5  # per family; the largest difference of two probabilities that is rounding


def tiny(family: str, seed: int = 0):
    """A model of this family with random weights and a few hundred thousand of them, in eval mode. Raises whatever the
    family raises if it cannot be made so small.
    """

    def sizes(config) -> dict:
        known, names = config.to_dict(), {**SIZES, **SPECIAL.get(config.model_type, {})}
        if "kv_lora_rank" in known:  # latent attention: heads have no width or groups of their own
            names = {**names, "num_key_value_heads": HEADS, "head_dim": names["qk_rope_head_dim"]}
        renamed = {config.attribute_map.get(name, name): value for name, value in names.items()}
        return {name: value for name, value in renamed.items() if name in known}

    config = CONFIG_MAPPING[family]()
    changes = sizes(config)
    for name in config.sub_configs:
        if (inner := getattr(config, name, None)) is not None:
            changes[name] = {**sizes(inner), "model_type": inner.model_type}
    config = CONFIG_MAPPING[family](**changes)
    with torch.device("meta"):
        count = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    if count > 2e7:
        raise ValueError(f"{count:,} weights are not tiny")
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


def judge(family: str) -> dict:
    """What becomes of a family: verdict, why, and the largest difference of a score from that of one full pass."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    try:
        model = tiny(family)
        with torch.no_grad():
            model(input_ids=torch.tensor([[5, 6, 7]]))
    except Exception as error:
        return {"family": family, "verdict": NOT_BUILT, "why": _short(error), "worst": None}
    try:
        classifier = OutputClassifier.from_backbone(model).eval()
        torch.nn.init.normal_(classifier.value_head.out.weight, std=3.0)
        scorer = StreamingScorer(classifier)
    except (ClassifierError, ValueError) as error:
        return {"family": family, "verdict": REFUSED, "why": _short(error), "worst": None}
    with scorer.open_batch(2) as batch:
        together = not batch.reads_alone
    try:
        differences = compare(classifier)
    except Exception as error:
        return {"family": family, "verdict": WRONG, "why": _short(error), "worst": None}
    worst = max(differences, key=differences.get)
    wrong = {way: f"{difference:.1g}" for way, difference in differences.items() if not difference <= SAME}
    verdict = WRONG if wrong else BATCHES if together else ALONE
    why = str(wrong) if wrong else "; ".join(f"{way}: {what}" for way, what in classifier.not_borne().items())
    return {"family": family, "verdict": verdict, "why": why, "worst": differences[worst]}


@torch.no_grad()
def compare(classifier) -> dict[str, float]:
    """The largest difference of a probability from that of one full pass, for every way of reading; 0 where a way is
    refused out loud.
    """
    draw = random.Random(1)
    rows = [[draw.randrange(5, 300) for _ in range(n)] for n in (30, 1, 17)]
    body, head = classifier.backbone, classifier.value_head
    want = [head(body(input_ids=torch.tensor([row])).last_hidden_state)[0].sigmoid().tolist() for row in rows]
    scorer = StreamingScorer(classifier)

    def off(got, of=rows) -> float:
        pairs = [(x, y) for a, b in zip(got, (want[rows.index(row)] for row in of), strict=True)
                 for x, y in zip(a, b, strict=True)]  # fmt: skip
        return max(abs(x - y) if x == x else float("inf") for x, y in pairs)

    def streamed(sizes):
        streams = [scorer.open() for _ in rows]
        left = [list(row) for row in rows]
        while any(left):  # the streams take turns
            for stream, row in zip(streams, left, strict=True):
                count = sizes()
                stream.push(row[:count])
                del row[:count]
        return off([stream.scores for stream in streams])

    def rewound():
        with scorer.open() as stream:
            stream.push([*rows[0][:20], 9, 8, 7])
            stream.rewind(3)
            for token in rows[0][20:]:
                stream.push([token])
            return off([stream.scores], rows[:1])

    def batched():
        left = [list(row) for row in rows]
        with scorer.open_batch(len(rows)) as batch:
            while any(left):
                counts = [draw.choice((0, 0, 1, 1, 3)) for _ in rows]
                batch.push([row[:n] for row, n in zip(left, counts, strict=True)])
                left = [row[n:] for row, n in zip(left, counts, strict=True)]
                for i, row in enumerate(left):
                    if not row:
                        batch.close_row(i)
            return off(batch.scores)

    def padded(left: bool):
        longest = max(map(len, rows))
        ids = [[0] * (longest - len(row)) + row if left else row + [0] * (longest - len(row)) for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) if left else [1] * len(row) + [0] * (longest - len(row))
                for row in rows]  # fmt: skip
        try:
            scores = classifier(torch.tensor(ids), torch.tensor(mask), with_lm_logits=False).harm_logits.sigmoid()
        except ClassifierError:
            return 0.0
        return off([row[-n:] if left else row[:n] for row, n in zip(scores.tolist(), map(len, rows), strict=True)])

    return {
        "one pass through the stream": streamed(lambda: 99),
        "token by token": streamed(lambda: 1),
        "in random chunks": streamed(lambda: draw.randrange(1, 9)),
        "rewound": rewound(),
        "in a batch with pauses": batched(),
        "finished completions": off([row.tolist() for row in score_completions(classifier, rows)]),
        "padded on the left": padded(left=True),
        "padded on the right": padded(left=False),
    }


def _short(error: BaseException) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 240, placeholder=" ...")


def _work(family: str, answer) -> None:
    torch.set_num_threads(1)
    answer.put(judge(family))


def judged_apart(family: str) -> dict:
    """`judge` in a process of its own: a crash or a hang is an answer too."""
    context = multiprocessing.get_context("fork")
    answer, start = context.Queue(), time.time()
    process = context.Process(target=_work, args=(family, answer), daemon=True)
    process.start()
    try:
        result = answer.get(timeout=SECONDS)
    except Exception:
        result = {"family": family, "verdict": NOT_BUILT, "why": f"no answer in {SECONDS} s, or a crash", "worst": None}
    process.kill()
    process.join()
    return {**result, "seconds": round(time.time() - start, 1)}


def table(results: dict) -> str:
    families = results["families"]
    lines = [
        "# Backbones",
        "",
        f"Every causal LM family of transformers {results['transformers']} (torch {results['torch']}), built tiny with "
        "random weights and with windows and chunks of a few tokens, on the CPU; judged by "
        f"`python -m tools.backbone_families` on {results['date']}. The last column is the largest difference of a "
        "score from that of one full pass over 30 tokens, in any way of reading that the library then allows.",
        "",
        "| verdict | families |",
        "|---|---|",
    ]
    verdicts = (BATCHES, ALONE, REFUSED, NOT_BUILT, WRONG)
    lines += [f"| {verdict} | {sum(row['verdict'] == verdict for row in families)} |" for verdict in verdicts]
    lines += ["", f"`{WRONG}` counts families that were accepted and then gave other scores. It must stay at 0.", ""]
    for verdict in verdicts:
        rows = [row for row in families if row["verdict"] == verdict]
        if rows:
            lines += [f"## {verdict[0].upper()}{verdict[1:]}", ""]
            lines += ["| family | what was seen | worst |", "|---|---|---|"]
            for row in rows:
                worst = "" if row["worst"] is None else f"{row['worst']:.0e}"
                lines.append(f"| {row['family']} | {row['why'].replace('|', '/')} | {worst} |")
            lines.append("")
    return "\n".join(lines)


def main() -> None:
    named = sys.argv[1:]
    judge("llama")  # so that no process imports again what all of them need
    families = []
    for family in named or FAMILIES:
        families.append(judged_apart(family))
        print(json.dumps(families[-1]), flush=True)
    if not named:
        results = {
            "transformers": transformers.__version__,
            "torch": torch.__version__.split("+")[0],
            "date": date.today().isoformat(),
            "families": families,
        }
        (DOCS / "backbones.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (DOCS / "backbones.md").write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
