"""`constclf score`: millions of texts from parquet, or a dataset of the hub, to parquet. Built for chapter 11.

    constclf score texts.parquet scores/ --classifier my_classifier --column text --threshold 0.93
    accelerate launch --num_processes 8 -m constclf_lib.cli score texts.parquet scores/ --classifier my_classifier

What it does: cuts the rows into parts, scores a part at a time and writes it whole or not at all. A run that was killed
goes on with the parts that are missing; processes take parts in turn, so their number changes nothing in what is
written, to the bit. `scores/` then is one table in the order of the rows: `pandas.read_parquet("scores")`.

Columns that are added: `harm` (the highest score of an output classifier, P(harmful) of an input classifier), `tokens`
or `off_label`, with a threshold `flagged` and, of an output classifier, `halt_index` (the first token over it, -1 for
none). A row that cannot be scored (no text, no finite score) says why in `error`, has no `harm`, and is flagged: it
fails closed.

What it deliberately does not do: exchange classifiers, training, thresholds (`evaluation.calibrate_threshold`).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm.auto import tqdm

from . import _files
from .errors import ClassifierError
from .models import InputClassifier, OutputClassifier
from .streaming import score_completions
from .tokenization import batch_text_ids

PLAN = "_score.json"  # whoever reads the folder as one table passes over names that begin so


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("texts", help="a parquet file, a folder of them, or hub:owner/dataset[:split]")
    parser.add_argument("out", type=Path, help="folder for the parts")
    parser.add_argument("--classifier", type=Path, required=True, help="folder of an output or input classifier")
    parser.add_argument("--column", default="text", help="column of texts (%(default)s)")
    parser.add_argument("--threshold", type=float, help="adds `flagged` (score > threshold) and `halt_index`")
    parser.add_argument("--part", type=int, default=4096, help="rows in a part (%(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="texts read at once (%(default)s)")
    parser.add_argument("--device", help="cpu, cuda ...; by default what accelerate gives each process")


def run(options: argparse.Namespace) -> int:
    """Scores what is missing in `options.out`. Raises ValueError for input that is not there or a folder that holds
    other scores.
    """
    from accelerate import PartialState

    if options.part < 1 or options.batch < 1:
        raise ValueError("--part and --batch are at least 1")
    state = PartialState(cpu=options.device == "cpu")
    files = _table_files(options.texts)
    classifier, what = _load(options.classifier)
    sizes = [pq.ParquetFile(file).metadata.num_rows for file in files]
    if options.column not in (names := pq.read_schema(files[0]).names):
        raise ValueError(f"no column {options.column!r} in {files[0].name}; it has {', '.join(names)}")
    tables = zip(files, sizes, strict=True)
    plan = {
        "texts": [{"name": file.name, "rows": n, "bytes": file.stat().st_size} for file, n in tables],
        "classifier": what, "column": options.column, "threshold": options.threshold, "part": options.part,
        "batch": options.batch,
    }  # fmt: skip
    if state.is_main_process:
        _begin(options.out, plan)
    state.wait_for_everyone()
    _check(options.out, plan)
    classifier.to(options.device or state.device)
    count = -(-sum(sizes) // options.part)
    mine = [i for i in range(count) if i % state.num_processes == state.process_index]
    missing = [i for i in mine if not _part(options.out, i).exists()]
    bar = tqdm(total=len(mine), initial=len(mine) - len(missing), unit="part", disable=not state.is_main_process)
    wanted = set(missing)
    for number, table in enumerate(_parts(files, options.part, wanted)):
        if number in wanted and table is not None:
            scored = _scored(table, classifier, options)
            part = _part(options.out, number)
            beside = part.with_name(f".{part.name}.{os.getpid()}.tmp")
            pq.write_table(scored, beside)
            beside.replace(part)
            bar.update()
    bar.close()
    state.wait_for_everyone()
    if state.is_main_process:
        print(f"{sum(sizes):,} rows in {count} parts in {options.out}")
    return 0


def _table_files(texts: str) -> list[Path]:
    if texts.startswith("hub:"):
        return [_from_hub(texts.removeprefix("hub:"))]
    path = Path(texts)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise ValueError(f"there is no parquet file {path}")
    return files


def _from_hub(name: str) -> Path:
    """The split of a dataset as one parquet file in the cache; asked by one process of a machine first."""
    from accelerate import PartialState

    repository, _, split = name.partition(":")
    home = Path(os.environ.get("CONSTCLF_CACHE") or Path.home() / ".cache" / "constclf")
    kept = home / f"{repository.replace('/', '--')}-{split or 'train'}.parquet"
    with PartialState().local_main_process_first():
        if not kept.exists():
            try:
                from datasets import load_dataset

                rows = load_dataset(repository, split=split or "train")
            except Exception as error:  # each way of not having it raises its own kind
                raise ValueError(
                    f"{repository} cannot be had from the hub ({type(error).__name__}: {str(error).splitlines()[0]}); "
                    "save it as parquet on another machine and name the file"
                ) from error
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_name(f"{kept.name}.{os.getpid()}.tmp")
            rows.to_parquet(str(part))
            part.replace(kept)
    return kept


def _load(folder: Path) -> tuple[OutputClassifier | InputClassifier, dict]:
    """The classifier in the folder, whichever of the two it is, and what says that it is the same one another time."""
    try:
        record = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClassifierError(f"{folder} holds no classifier ({error})") from error
    kinds: dict[str, Any] = {"output": OutputClassifier, "input": InputClassifier}
    if record.get("kind") not in kinds:
        raise ClassifierError(f"{folder} holds an {record.get('kind')} classifier; output and input ones can be asked")
    found = kinds[record["kind"]].from_pretrained(folder)
    return found, {key: record.get(key) for key in ("kind", "fingerprint", "files")}


def _begin(out: Path, plan: dict) -> None:
    if not (out / PLAN).exists():
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(f"{out} holds other files; name an empty folder")
        out.mkdir(parents=True, exist_ok=True)
        _files.write_json(out / PLAN, plan)
    for left in out.glob(".*.tmp"):  # of a run that was killed
        left.unlink()


def _check(out: Path, plan: dict) -> None:
    stored = json.loads((out / PLAN).read_text(encoding="utf-8"))
    if other := [key for key in plan if stored.get(key) != json.loads(json.dumps(plan[key]))]:
        raise ValueError(f"{out} was begun with other {', '.join(other)}; name another folder")


def _part(out: Path, number: int) -> Path:
    return out / f"part-{number:06d}.parquet"


def _parts(files: list[Path], size: int, wanted: set[int]) -> Iterator[pa.Table | None]:
    """All rows in tables of `size`, None for one that nobody wants (read past, not kept)."""
    rest: list[pa.RecordBatch] = []
    have, number = 0, 0
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=size):
            while batch.num_rows:
                taken = batch.slice(0, size - have)
                batch, have = batch.slice(taken.num_rows), have + taken.num_rows
                rest.append(taken)
                if have == size:
                    yield pa.Table.from_batches(rest) if number in wanted else None
                    rest, have, number = [], 0, number + 1
    if rest:
        yield pa.Table.from_batches(rest) if number in wanted else None


def _scored(table: pa.Table, classifier, options: argparse.Namespace) -> pa.Table:
    table = table.replace_schema_metadata(None)  # what pandas notes of an index holds for the whole file only
    texts = table.column(options.column).to_pylist()
    error = ["" if isinstance(text, str) else "no text" for text in texts]
    given = [text if isinstance(text, str) else "" for text in texts]
    judge = _output if isinstance(classifier, OutputClassifier) else _input
    harm, beside, halts = judge(classifier, given, options)
    error = [e or ("" if np.isfinite(h) else "the score is not finite") for e, h in zip(error, harm, strict=True)]
    bad = np.array([bool(e) for e in error])
    new = {"harm": pa.array(np.where(bad, 0, harm).astype(np.float32), mask=bad), **beside}
    if options.threshold is not None:
        new["flagged"] = pa.array(bad | (harm > options.threshold))
        if halts is not None:
            new["halt_index"] = pa.array(np.where(bad, 0, halts).astype(np.int32))  # nothing of it may go out
    new["error"] = pa.array(error)
    for name, column in new.items():
        if name in table.column_names:
            raise ValueError(f"the texts have a column {name!r} already; rename it")
        table = table.append_column(name, column)
    return table


def _output(classifier: OutputClassifier, texts: list[str], options):
    rows = batch_text_ids(classifier.tokenizer, texts)
    scores = score_completions(classifier, rows, options.batch)
    harm = np.array([row.max() if len(row) else 0.0 for row in scores], np.float32)  # nan is handed on by max
    halts = None
    if options.threshold is not None:
        over = [np.flatnonzero(row > options.threshold) for row in scores]
        halts = np.array([found[0] if len(found) else -1 for found in over])
    return harm, {"tokens": pa.array([len(row) for row in rows], pa.int32())}, halts


@torch.inference_mode()
def _input(classifier: InputClassifier, texts: list[str], options):
    found = classifier.score(texts, options.batch)
    return found.harm.numpy(), {"off_label": pa.array(found.off_label.numpy())}, None
