"""Where public moderation data lie, and how they are read: by name, or from a file that somebody has already.

What it does: `load_public("surge_toxicity")` fetches the file at the commit that was looked at, compares its SHA-256,
keeps it, and hands it to the schema; `load_public("toxic_chat", split="test")` asks the Hugging Face hub through the
package `datasets`; a second argument names a file or folder instead, and nothing is fetched at all.

What it deliberately does not do: ship a single row, or pass a file on: each reader takes it from where it is published,
under its licence (docs/public_data.md).
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from . import schemas

_GITHUB = "https://raw.githubusercontent.com"
_OPENAI = f"{_GITHUB}/openai/moderation-api-release/f4ab51b5edd3bfbcb349a56324274235b674e0e4"
_SURGE = f"{_GITHUB}/surge-ai/toxicity/ea80324b95ed7e3cc787bdb6faeb763fcc0ae258"
_XSTEST = f"{_GITHUB}/paul-rottger/exaggerated-safety/d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d"
_READERS: dict[str, Callable[..., pd.DataFrame]] = {
    ".csv": lambda path: pd.read_csv(path, keep_default_na=False, na_values=[""], encoding="utf-8-sig"),
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False),
    ".json": lambda path: pd.read_json(path, dtype=False),
    ".parquet": pd.read_parquet,
}


@dataclass(frozen=True)
class Source:
    """A dataset: its schema; the hub's (name, configuration) or {URL: SHA-256}; splits; licence, as its page says."""

    schema: Callable[[pd.DataFrame], pd.DataFrame]
    page: str
    licence: str
    hub: tuple[str, str | None] | None = None
    splits: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


SOURCES = {
    "openai_moderation": Source(
        schemas.openai_moderation,
        "https://github.com/openai/moderation-api-release",
        "MIT",
        files={
            f"{_OPENAI}/data/samples-1680.jsonl.gz": (
                "ef3f7de86ee394fe337b0a566ba4b9c7db058f3caa8d6a4a0006138b663ab9a8"
            )
        },
    ),
    "surge_toxicity": Source(
        schemas.surge_toxicity,
        "https://github.com/surge-ai/toxicity",
        "MIT",
        files={f"{_SURGE}/toxicity_en.csv": ("3bfcdd54ab90c8bab232235226a00e28b0d457c3c19e87230f73dde1880e6c44")},
    ),
    "xstest": Source(
        schemas.xstest,
        "https://github.com/paul-rottger/exaggerated-safety",
        "CC-BY-4.0",
        files={f"{_XSTEST}/xstest_prompts.csv": "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a"},
    ),
    "xstest_replies": Source(
        schemas.xstest_replies,
        "https://github.com/paul-rottger/exaggerated-safety",
        "prompts CC-BY-4.0; replies under the terms of Meta, Mistral AI and OpenAI",
        files={
            f"{_XSTEST}/model_completions/xstest_v2_completions_{name}.csv": checksum
            for name, checksum in {
                "gpt4": "71af323af8ecdec0efae23992317721441d2cfedddedeef3248f842f4e15c9ca",
                "llama2new": "6365cc55ce0a593c7ab8785853d02784be027d97199d4077912b4313cd010099",
                "llama2orig": "cbc52550e8ba8197a3e3d97a5af078d27bae4766737cd62df80270126a87ffc6",
                "mistralguard": "0ac03817b65e019a8f5b4b3eed805086f9f7fafe538ac9ebd156f80210af6903",
                "mistralinstruct": "6a146b65a5b96ec8249729bc2db459697175125998d7cbbcc88f7688ecf31dad",
            }.items()
        },
    ),
    "toxic_chat": Source(
        schemas.toxic_chat,
        "https://huggingface.co/datasets/lmsys/toxic-chat",
        "CC-BY-NC-4.0",
        hub=("lmsys/toxic-chat", "toxicchat0124"),
        splits=("train", "test"),
    ),
    "aegis": Source(
        schemas.aegis,
        "https://huggingface.co/datasets/nvidia/Aegis-AI-Content-Safety-Dataset-2.0",
        "CC-BY-4.0",
        hub=("nvidia/Aegis-AI-Content-Safety-Dataset-2.0", None),
        splits=("train", "validation", "test"),
    ),
    "beaver_tails": Source(
        schemas.beaver_tails,
        "https://huggingface.co/datasets/PKU-Alignment/BeaverTails",
        "CC-BY-NC-4.0",
        hub=("PKU-Alignment/BeaverTails", None),
        splits=("330k_train", "330k_test", "30k_train", "30k_test"),
    ),
}


def load_public(name: str, path: str | os.PathLike | None = None, split: str | None = None) -> pd.DataFrame:
    """The dataset `name` (one of SOURCES) in this library's columns (`schemas.COLUMNS` and labels beside).

    path: a .csv, .jsonl, .json (each also .gz) or .parquet file in the published form, or a folder of such files, read
    one after the other by name; None to have it fetched. split: of a dataset on the hub, "test" where it has one of
    that name by default. `attrs["source"]` says where the rows came from; a column `file` too where there are several.

    Raises ValueError for an unknown name or split, or a file that is not of the schema; OSError, saying what to do, if
    it cannot be had from where it is published.
    """
    if name not in SOURCES:
        raise ValueError(f"{name!r} is none of {', '.join(SOURCES)}")
    source = SOURCES[name]
    if split is not None and (path is not None or split not in source.splits):
        has = f"it has {', '.join(source.splits)}" if source.splits and path is None else "there is none to choose"
        raise ValueError(f"no split {split!r} in {name}: {has}")
    if path is not None:
        found, where = _from_files(source, _files_in(Path(path))), str(path)
    elif source.files:
        found, where = _from_files(source, [_fetched(name, *item) for item in source.files.items()]), source.page
    else:
        split = split or next(s for s in source.splits if s.endswith("test"))
        found, where = source.schema(_from_hub(name, source, split)), f"{source.page}, {split}"
    found.attrs["source"] = where
    return found


def known(frame: pd.DataFrame, label: str = "harmful") -> pd.DataFrame:
    """The rows whose `label` is known, with it as an ordinary boolean: what trainers and metrics take."""
    rows = frame[frame[label].notna()]
    return rows.assign(**{label: rows[label].astype(bool)}).reset_index(drop=True)


def _from_files(source: Source, files: list[Path]) -> pd.DataFrame:
    frames = []
    for file in files:
        try:
            frame = source.schema(_READERS[_kind(file)](file))
        except (ValueError, UnicodeDecodeError, OSError) as error:
            raise ValueError(f"{file.name} cannot be read as {source.schema.__name__}: {error}") from error
        frames.append(frame.assign(file=file.name) if len(files) > 1 else frame)
    return pd.concat(frames, ignore_index=True)


def _kind(file: Path) -> str:
    return Path(file.name.removesuffix(".gz")).suffix


def _files_in(path: Path) -> list[Path]:
    if not path.exists():
        raise ValueError(f"there is no {path}")
    files = sorted(file for file in path.iterdir() if _kind(file) in _READERS) if path.is_dir() else [path]
    if not files or _kind(files[0]) not in _READERS:
        raise ValueError(f"{path} is no file that is read here ({', '.join(_READERS)}), nor a folder of such")
    return files


def _fetched(name: str, url: str, checksum: str) -> Path:
    """The file at `url`, from where it was kept (CONSTCLF_CACHE, or ~/.cache/constclf) or fetched and compared now."""
    home = Path(os.environ.get("CONSTCLF_CACHE") or Path.home() / ".cache" / "constclf")
    kept = home / name / url.rpartition("/")[2]
    if not (kept.exists() and hashlib.sha256(kept.read_bytes()).hexdigest() == checksum):
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                content = answer.read()
        except OSError as error:
            raise OSError(f"{url} cannot be reached ({error}). {_elsewhere(name)}") from error
        if (got := hashlib.sha256(content).hexdigest()) != checksum:
            raise OSError(f"{url} is not the file that was looked at (SHA-256 {got[:16]}...). {_elsewhere(name)}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f"{kept.name}.{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(kept)
    return kept


def _from_hub(name: str, source: Source, split: str) -> pd.DataFrame:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise OSError(f"{name} lies on the hub; `pip install datasets` to ask it. {_elsewhere(name)}") from error
    assert source.hub is not None
    repository, configuration = source.hub
    try:
        return load_dataset(repository, configuration, split=split).to_pandas()
    except Exception as error:  # no connection, offline mode, a gate, a renamed file: each raises its own kind
        first = str(error).strip().splitlines()[:1]
        raise OSError(
            f"{repository} cannot be had from the hub ({type(error).__name__}: {' '.join(first)}). If it is behind a "
            f"gate, accept its terms at {source.page} and log in. {_elsewhere(name)}"
        ) from error


def _elsewhere(name: str) -> str:
    return (
        f"Without a connection: take the file from {SOURCES[name].page} on another machine and name it: "
        f'load_public("{name}", "path/to/file")'
    )
