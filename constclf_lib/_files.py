"""Files and folders that are written whole or not at all, and what identifies a file.

A folder is saved in three steps, all of them *inside* it (it may be a mount point, or its parent read-only). The new
files go into a hidden folder. An empty file `.complete` in there is the commit: from now on `standing` points to the
new files. Then each of them takes its place, what they supersede goes, and the hidden folder last. Whoever is killed,
or runs out of disk, leaves the old files or the new ones, never neither; the next save finishes or clears up.

Deliberately not here: what is in the files, and locks. One process at a time saves to a folder; two do not destroy it,
but whose files stand in the end is open. Used by checkpoints, the build and whoever saves a folder of models.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_STAGE, _COMPLETE, _BESIDE = ".new-", ".complete", ".beside"


def describe(file: Path) -> dict:
    """{"bytes": size, "sha256": hex digest} of a file, read in pieces of a megabyte."""
    digest, size = hashlib.sha256(), 0
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def write_json(path: Path, content: dict) -> None:
    """`content` as sorted JSON, and `path` as it was if anything fails on the way."""
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """`text` as UTF-8, and `path` as it was if anything fails on the way. Missing folders are made."""
    path = Path(path)
    os.makedirs(path.parent, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        _to_disk(beside)
        os.replace(beside, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(beside)


def standing(folder: str | os.PathLike) -> Path:
    """Where the files of `folder` are to be read: there, or in a complete save inside it that was interrupted before
    its files had taken their places. Writes nothing.
    """
    folder = Path(folder)
    complete = [new for new in sorted(folder.glob(f"{_STAGE}*")) if (new / _COMPLETE).exists()]
    return complete[-1] if complete else folder


@contextmanager
def stage(folder: str | os.PathLike, supersedes: Sequence[str] = ("*",)) -> Iterator[Path]:
    """An empty folder to write into; when the block ends well, its files (in subfolders too) replace those of
    `folder`.

    supersedes: glob patterns of old files that go even if no new one has their name; all other files stay. If the
    block or the writing fails, `folder` is as it was. If putting the files in place fails, the error is raised too, but
    the new files are complete and `standing` finds them. For a moment old and new take up disk together (and one more
    copy of the new where there are no hard links).
    """
    folder = Path(folder)
    made = not folder.is_dir()
    os.makedirs(folder, exist_ok=True)
    _tidy(folder, supersedes)
    new = folder / f"{_STAGE}{time.time_ns()}-{os.getpid()}"
    os.mkdir(new)
    try:
        yield new
        for file in _files(new):
            _to_disk(file)
        (new / _COMPLETE).touch()
        _put_in_place(new, folder, supersedes)
    finally:
        if not (new / _COMPLETE).exists():
            shutil.rmtree(new, ignore_errors=True)
            if made:
                with suppress(OSError):  # not empty: the save went well
                    os.rmdir(folder)


def _put_in_place(new: Path, folder: Path, supersedes: Sequence[str]) -> None:
    """Can be repeated from any point at which it stopped: until its last lines, `new` is complete."""
    names = {file.relative_to(new) for file in _files(new)}
    for name in sorted(names):
        _give_a_name(new / name, folder / name, new / _BESIDE)
    for pattern in supersedes:
        for old in sorted(folder.glob(pattern)):
            if old.is_file() and old.relative_to(folder) not in names:
                os.unlink(old)
                if old.parent != folder:
                    with suppress(OSError):  # a subfolder goes with its last file
                        os.rmdir(old.parent)
    with suppress(FileNotFoundError):  # another process finished it too
        os.unlink(new / _COMPLETE)
    shutil.rmtree(new, ignore_errors=True)


def _give_a_name(file: Path, target: Path, beside: Path) -> None:
    """`target` becomes a second name of `file`, in one step, which replaces what it was before."""
    os.makedirs(target.parent, exist_ok=True)
    with suppress(FileNotFoundError):
        os.unlink(beside)
    try:
        os.link(file, beside)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, beside)
        _to_disk(beside)
    os.replace(beside, target)


def _tidy(folder: Path, supersedes: Sequence[str]) -> None:
    """Finishes what earlier saves left complete, so that none of it outlives a newer one, and clears the rest, unless
    the process that is at it lives.
    """
    for left in sorted(folder.glob(f"{_STAGE}*")):
        if (left / _COMPLETE).exists():
            _put_in_place(left, folder, supersedes)
        elif not _lives_elsewhere(left):
            shutil.rmtree(left, ignore_errors=True)


def _lives_elsewhere(stage: Path) -> bool:
    process = stage.name.rpartition("-")[2]
    if not process.isdigit() or int(process) == os.getpid() or os.name == "nt":  # there, os.kill would really kill
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True


def _files(new: Path) -> list[Path]:
    return [path for path in sorted(new.rglob("*")) if path.is_file() and path.name not in (_COMPLETE, _BESIDE)]


def _to_disk(file: Path) -> None:
    """What only the page cache holds could still be refused by a full disk, or be lost with the power."""
    with open(file, "r+b") as stream:
        os.fsync(stream.fileno())
