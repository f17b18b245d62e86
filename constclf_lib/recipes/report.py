"""The measured headline as a table, and into the README, so that its numbers are the measured ones."""

from __future__ import annotations

from pathlib import Path

from ..lab import PAPER


def headline_table(measured: dict) -> str:
    """The headline as a Markdown table, the papers' figures beside ours."""
    lines = ["| | the papers | this lab | 95% interval | n |", "|---|---|---|---|---|"]
    for name, (label, theirs) in PAPER.items():
        low, high = measured[f"{name}_interval"]
        interval = f"{low:.2%} to {high:.2%}"
        lines.append(f"| {label} | {theirs} | {measured[name]:.2%} | {interval} | {measured[f'{name}_n']:,} |")
    return "\n".join(lines)


def footnotes(campaign: dict) -> str:
    """Two figures of the headline hide two causes each; these sentences take them apart."""
    codes, hard = campaign["streaming"], campaign["hard_refused_wrongly"]
    seen, unseen = codes["seen_codes"], codes["code_reversal"]["halted"]
    return (
        "One reply code was in no reply that the output classifier was trained on as such, though its words were among "
        "the prompts, in the tokenizer and so among the random tokens of unreadable rows. It halts "
        f"{unseen['value']:.2%} of the harmful replies in it; in plain text and in the codes that it "
        f"knows it halts {seen['halted']['value']:.2%}, and {seen['leaked']['value']:.2%} leak half the rubric. The "
        f"price is among the hard benign refusals: {campaign['hard_refused_unread']} are harmless replies in that "
        f"code. Another {campaign['hard_halted_rightly']} stopped a reply in which the assistant had misread the "
        f"question and did give restricted know-how; without these it is {hard['value']:.2%}. On ordinary requests "
        f"{campaign['ordinary_halted_rightly']} refusals are of that last kind, and "
        f"{campaign['ordinary_refused_wrongly']['value']:.2%} are mistakes."
    )


def update_readme(path: Path, results: dict) -> None:
    """Puts table and footnotes between the two headline marks of the README, so that its numbers are the measured."""
    if not path.exists():
        return
    mark = "`python -m constclf_lib.build --only results` -->\n"
    before, mark, rest = path.read_text(encoding="utf-8").partition(mark)
    after = rest[rest.index("<!-- /headline -->") :]
    content = f"{headline_table(results['headline'])}\n\n{footnotes(results['campaign'])}\n"
    path.write_text(before + mark + content + after, encoding="utf-8")
