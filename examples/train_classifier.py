"""An output classifier from your own labelled texts, on any Hugging Face causal LM (chapter 03 has the loop by hand).

    pip install ".[lab]"           # in a clone: the library, pandas and scikit-learn
    python examples/train_classifier.py texts.csv --backbone HuggingFaceTB/SmolLM2-135M --out my_classifier

In several processes, on one machine or more (`accelerate config` asks for them once):

    accelerate launch examples/train_classifier.py texts.csv --backbone ... --out my_classifier

--batch is what goes into one step, over all processes: their number changes the time, not the training. With
--save-steps a run that was killed goes on from its last checkpoint when the same command is given again.

texts: a .csv, .jsonl or .parquet with a column of texts and one of labels (1 / 0, true / false, yes / no, or harmful /
harmless). 60% of the texts train (the annealed loss of chapter 06), 20% set a threshold, 20% are for the figures (with
Wilson intervals, beside a bag of words). Equal texts count once. The split is random: where several texts come from one
source, rates on texts from elsewhere may be worse than these.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import torch
from accelerate import PartialState
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from constclf_lib.errors import ClassifierError
from constclf_lib.evaluation import calibrate_threshold, highest_scores, rate_of
from constclf_lib.models import OutputClassifier, load_backbone
from constclf_lib.streaming import score_completions
from constclf_lib.tokenization import batch_text_ids
from constclf_lib.training import train_output_classifier

READERS = {
    ".csv": lambda path: pd.read_csv(path, keep_default_na=False),  # "None" is a text
    ".jsonl": lambda path: pd.read_json(path, lines=True),
    ".parquet": pd.read_parquet,
}
WORDS = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "harmful"), True),
    **dict.fromkeys(("0", "0.0", "false", "no", "harmless"), False),
}
FEWEST = 50  # texts of each label, of which ten are in each part that is held back


def labelled_texts(path: Path, text: str, label: str) -> pd.DataFrame:
    """Columns `completion` and `harmful`, every text once. Raises ValueError, saying what is wrong with the file."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.suffix not in READERS:
        raise ValueError(f"{path.name} is none of {', '.join(READERS)}")
    try:
        rows = READERS[path.suffix](path)
    except Exception as error:  # each reader raises its own kind
        raise ValueError(f"{path.name} cannot be read as {path.suffix}: {error}") from error
    for column in (text, label):
        if column not in rows:
            raise ValueError(f"{path.name} has no column {column!r}; it has {', '.join(map(str, rows.columns))}")
    empty = [not (isinstance(value, str) and value.strip()) for value in rows[text]]
    if any(empty):
        raise ValueError(f"{sum(empty)} of {len(rows)} rows have no text; the first is row {empty.index(True) + 1}")
    harmful = rows[label].astype(str).str.strip().str.lower().map(WORDS)
    if harmful.isna().any():
        raise ValueError(f"{rows[label][harmful.isna()].iloc[0]!r} is no label; use one of {', '.join(WORDS)}")
    frame = pd.DataFrame({"completion": rows[text], "harmful": harmful.astype(bool)}).drop_duplicates()
    if twice := int(frame.completion.duplicated().sum()):
        raise ValueError(f"{twice} texts stand there with both labels; decide which one holds")
    return frame


def three_parts(frame: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
    """60% train, 20% calibration, 20% test, each with the same share of harmful texts."""
    if min(frame.harmful.sum(), (~frame.harmful).sum()) < FEWEST:
        raise ValueError(f"{frame.harmful.sum()} of {len(frame)} texts are harmful; of each label {FEWEST} are needed")
    train, rest = train_test_split(frame, test_size=0.4, random_state=seed, stratify=frame.harmful)
    calibration, test = train_test_split(rest, test_size=0.5, random_state=seed, stratify=rest.harmful)
    parts = {"train": train, "calibration": calibration, "test": test}
    return {name: part.reset_index(drop=True) for name, part in parts.items()}


def trained(parts: dict[str, pd.DataFrame], options: argparse.Namespace) -> tuple[OutputClassifier, list[float]]:
    """The classifier and its harm loss at every step. Trains on texts of at most --window tokens, whole: a label
    belongs to a whole text, so nothing is cut.
    """
    try:
        model, tokenizer = load_backbone(options.backbone, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ValueError(f"{options.backbone} does not load as a causal LM: {str(error).splitlines()[0]}") from error
    torch.manual_seed(options.seed)
    train = parts["train"]
    classifier = OutputClassifier.from_backbone(model, tokenizer, base_rate=float(train.harmful.mean()))
    limit = min(options.window, classifier.context_length or options.window)
    lengths = [len(classifier.prefix_ids) + len(ids) for ids in batch_text_ids(tokenizer, train.completion)]
    rows = train[[length <= limit for length in lengths]].reset_index(drop=True)
    say(f"training on {len(rows)} of {len(train)} texts, those of at most {limit} tokens; longer ones are left out")
    if rows.harmful.nunique() < 2:
        raise ValueError("what is left has not both labels: a larger --window would keep more")
    processes = PartialState().num_processes
    if options.batch % processes:
        raise ValueError(f"a step of {options.batch} texts cannot be shared evenly by {processes} processes")
    settings = {"loss": "annealed", "lam": options.lam, "lr": options.lr, "seed": options.seed, "logging_steps": 1}
    settings |= {"batch": options.batch // processes, "save_steps": options.save_steps or None}
    if options.save_steps:  # with the settings in its name: a run with others must not go on from here
        settings["output_dir"] = options.out / f"checkpoints-{_name(options, len(rows))}"
    if PartialState().device.type == "cpu":
        settings["use_cpu"] = True
    classifier, log = train_output_classifier(classifier, rows, options.steps, **settings)
    classifier.window = limit  # longer texts are read in windows of the length that was trained
    harm = [line["harm_loss"] for line in log if "harm_loss" in line]
    say(f"harm loss: {harm[0]:.3f} at the first of {len(harm)} steps, {harm[-1]:.3f} at the last")
    return classifier, harm


def say(*words, **options) -> None:
    """print, in one of the processes."""
    if PartialState().is_main_process:
        print(*words, **options)


def _name(options: argparse.Namespace, rows: int) -> str:
    wanted = [
        options.backbone,
        rows,
        *(getattr(options, name) for name in ("steps", "batch", "lr", "lam", "window", "seed")),
    ]
    return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:8]


def figures(name: str, calibration, test, parts: dict[str, pd.DataFrame], max_fpr: float) -> tuple[float, dict]:
    """The threshold from calibration, and both rates on test with Wilson intervals; printed."""
    harmful = parts["test"].harmful.to_numpy()
    threshold = calibrate_threshold(calibration[~parts["calibration"].harmful.to_numpy()], max_fpr)
    rates = {"tpr": rate_of(test[harmful] > threshold), "fpr": rate_of(test[~harmful] > threshold)}
    words = [f"{side.upper()} {r.value:.3f} [{r.low:.3f}, {r.high:.3f}] n {r.n}" for side, r in rates.items()]
    print(f"{name:12}", *words, f"threshold {threshold:.4f}", sep="   ")
    return threshold, {side: rate.stored() for side, rate in rates.items()}


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--backbone", required=True, help="name, folder or GGUF file of a causal LM")
    parser.add_argument("--out", type=Path, required=True, help="folder for the classifier")
    for name, value, what in (
        ("text", "text", "column of texts"), ("label", "label", "column of labels"), ("steps", 300, "of training"),
        ("batch", 16, "texts per step"), ("lr", 1e-4, "learning rate"), ("lam", 0.1, "weight of the next-token loss"),
        ("window", 256, "tokens read at once"), ("seed", 0, "of split, head and order"),
        ("save-steps", 0, "between checkpoints, 0 for none"),
        ("max-fpr", 0.01, "share of harmless texts that may be flagged"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"{what} (%(default)s)")
    options = parser.parse_args(arguments)
    if not (0 <= options.max_fpr <= 1 and options.steps > 0 and options.batch > 0):
        parser.error("--max-fpr is a share between 0 and 1; --steps and --batch are at least 1")
    try:
        parts = three_parts(labelled_texts(options.texts, options.text, options.label), options.seed)
        options.out.mkdir(parents=True, exist_ok=True)  # before the training, not after it
        classifier, harm = trained(parts, options)
    except (ClassifierError, OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    if not PartialState().is_main_process:  # the figures are soon made, and by one
        return {}
    held_back = [parts[name].completion.tolist() for name in ("calibration", "test")]
    scores = [highest_scores(score_completions(classifier, texts)) for texts in held_back]
    bag = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000, C=10.0))
    bag.fit(parts["train"].completion, parts["train"].harmful)
    counts = [bag.predict_proba(texts)[:, 1] for texts in held_back]
    print(f"on {len(parts['test'])} test texts, flagging at most {options.max_fpr:.2%} of harmless calibration texts:")
    threshold, found = figures("classifier", *scores, parts, options.max_fpr)
    _, beside = figures("bag of words", *counts, parts, options.max_fpr)
    classifier.save_pretrained(options.out)
    report = {"threshold": threshold, "max_fpr": options.max_fpr, "classifier": found, "bag_of_words": beside}
    report["harm_loss"] = harm
    (options.out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for folder in options.out.glob("checkpoints-*"):  # the run is over
        shutil.rmtree(folder)
    print(f"saved in {options.out}: OutputClassifier.from_pretrained loads it, report.json has the threshold")
    return report


if __name__ == "__main__":
    main()
