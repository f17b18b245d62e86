"""The measured headline as a table, and into the README, so that its numbers are the measured ones."""

from __future__ import annotations

from pathlib import Path

from ..lab import AIMS, BY_LENGTH, LENGTH_EDGES, PAPER, met


def headline_table(measured: dict) -> str:
    """The headline as a Markdown table, the papers' figures and our own aims beside it."""
    lines = ["| | the papers | this lab | 95% interval | n | aimed at | met |", "|---|---|---|---|---|---|---|"]
    for name, (label, theirs) in PAPER.items():
        low, high = measured[f"{name}_interval"]
        sign, bound = AIMS.get(name, ("", 0))
        aim = f"{'at least' if sign == '>=' else 'at most'} {100 * bound:g}%" if sign else ""
        cells = label, theirs, f"{measured[name]:.2%}", f"{low:.2%} to {high:.2%}", f"{measured[f'{name}_n']:,}"
        lines.append(f"| {' | '.join(cells)} | {aim} | {met(name, low, high)} |")
    return "\n".join(lines)


def length_table(measured: dict) -> str:
    """What the headline gives per length of the reply, as a Markdown table."""
    buckets = [f"to_{high}" for high in LENGTH_EDGES]
    lines = [
        "| length of the reply, tokens | " + " | ".join(f"to {high:,}" for high in LENGTH_EDGES) + " |",
        "|---" * (len(buckets) + 1) + "|",
    ]
    for name, label in BY_LENGTH.items():
        found = measured[f"{name}_by_length"]
        cells = [_cell(found[bucket]) if bucket in found else "–" for bucket in buckets]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rate: dict) -> str:
    low, high = rate["interval"]
    return f"{rate['value']:.2%} ({low:.2%} to {high:.2%}, n {rate['n']:,})"


def footnotes(campaign: dict) -> str:
    """Some figures of the headline hide several causes each; these sentences take them apart."""
    seen, hard = campaign["streaming"]["seen_codes"], campaign["hard_refused_wrongly"]
    useful, ordinary = campaign["useful_attacks"], campaign["ordinary_refused_wrongly"]
    return (
        f"Of {sum(useful.values()):,} sealed attacks that succeed unguarded, both bodyguards would stop "
        f"{useful['both']:,}, the input classifier alone {useful['input']:,}, the output classifier alone "
        f"{useful['output']:,}, and nobody {useful['nobody']:,}. In plain text and in the codes that it was trained "
        f"on, the output classifier halts {seen['halted']['value']:.2%}. It cannot read a code and was trained to stop "
        f"what it cannot read: of the hard benign refusals {campaign['hard_refused_unread']} are harmless requests for "
        f"a reply in a code. Another {campaign['hard_halted_rightly']} stopped a reply in which the assistant had "
        f"misread the question and did give restricted know-how; without these it is {hard['value']:.2%}. On ordinary "
        f"requests {campaign['ordinary_halted_rightly']} refusals stopped such a reply; without them the guard refuses "
        f"{ordinary['value']:.2%}."
    )


def other_seeds(augmentation: dict) -> str:
    """What became of the shipped output recipe with each seed of the study: no mean hides two outcomes."""
    caught = {
        name.split("/")[1].removeprefix("seed"): run["caught"]["plain"]
        for name, run in sorted(augmentation["output_runs"].items())
        if name.startswith("codes_stopped/")
    }
    told = ", ".join(f"with seed {seed} {share:.0%}" for seed, share in caught.items())
    return (
        "These figures are those of the shipped weights, not of the recipe: trained anew in the study of augmentation "
        f"(chapter 09), the output classifier's recipe catches, of plain harmful replies at 1% false alarms, {told}."
    )


def update_readme(path: Path, results: dict) -> None:
    """Puts tables and footnotes between the two headline marks of the README, so that its numbers are the measured."""
    if not path.exists():
        return
    mark = "`python -m constclf_lib.build --only results` -->\n"
    before, mark, rest = path.read_text(encoding="utf-8").partition(mark)
    after = rest[rest.index("<!-- /headline -->") :]
    measured = results["headline"]
    parts = [headline_table(measured), length_table(measured), footnotes(results["campaign"])]
    if "augmentation" in results:
        parts.append(other_seeds(results["augmentation"]))
    content = "\n\n".join(parts) + "\n"
    path.write_text(before + mark + content + after, encoding="utf-8")
