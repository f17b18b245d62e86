"""Folders written whole or not at all, at every point at which a process can die or a disk be full."""

import functools
import hashlib
import json
import os
import shutil
from contextlib import suppress

import pytest
from disk import Dead, Disk

from constclf_lib import _files

OLD = {"card": "old", "weights": "old", "weights-2": "old", "sub/template": "old", "optimizer": "kept"}
NEW = {"card": "new", "weights": "new", "sub/template": "new", "sub/more": "new", "extra": "new"}
AFTER = NEW | {"optimizer": "kept"}


def make(folder, content):
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def save(folder, content=NEW):
    with _files.stage(folder, ("card", "weights*", "sub/*")) as new:
        make(new, content)


def read(folder):
    standing = _files.standing(folder)
    names = (path.relative_to(standing).as_posix() for path in standing.rglob("*") if path.is_file())
    return {name: (standing / name).read_text() for name in names if not name.startswith(".")}


def is_new(found):
    return {name: text for name, text in found.items() if name != "optimizer"} == NEW


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("first", [OLD, {}], ids=["old", "nothing"])
def test_whenever_it_ends_the_old_or_the_new_stands_and_the_next_save_clears_up(
    tmp_path, monkeypatch, full, links, first
):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of them take their time
    folder, step, seen, disk = tmp_path / "f", 0, set(), None
    while disk is None or disk.struck:
        shutil.rmtree(folder, ignore_errors=True)
        make(folder, first)
        with Disk(step, full, links) as disk, suppress(Dead, OSError):
            save(folder)
        found = read(folder)
        assert found == first or is_new(found), f"after {step} changes, at {disk.last}: {found}"
        seen.add("new" if is_new(found) else "old")
        for left in folder.glob(".new-*"):  # as the next process finds it
            left.rename(left.with_name(f"{left.name.rpartition('-')[0]}-{dead_process()}"))
        with Disk(step % 9, full, links), suppress(Dead, OSError):  # clearing up may end in the middle as well
            save(folder)
        found = read(folder)
        assert found == first or is_new(found)
        save(folder)
        assert read(folder) == NEW | {name: text for name, text in first.items() if name == "optimizer"}
        assert {path.name for path in folder.iterdir()} == {name.partition("/")[0] for name in read(folder)}
        step += 1
    assert step > 15 and seen == {"old", "new"}


@functools.cache
def dead_process() -> int:
    process = os.spawnvp(os.P_NOWAIT, "true", ["true"])
    os.waitpid(process, 0)
    return process


def test_a_save_of_a_living_process_is_left_alone(tmp_path):
    make(tmp_path, OLD)
    theirs = tmp_path / f".new-1-{os.getppid()}"
    theirs.mkdir()
    save(tmp_path)
    assert theirs.exists() and read(tmp_path) == AFTER


def test_a_complete_save_does_not_outlive_a_newer_one(tmp_path):
    """Its process seems to live: numbers of processes come again."""
    make(tmp_path, OLD)
    make(tmp_path / f".new-1-{os.getppid()}", {"card": "between", ".complete": ""})
    assert read(tmp_path) == {"card": "between"}
    save(tmp_path)
    assert read(tmp_path) == AFTER and not list(tmp_path.glob(".new-*"))


def test_an_error_in_the_block_leaves_the_folder_as_it_was(tmp_path):
    make(tmp_path / "f", OLD)
    for folder in (tmp_path / "f", tmp_path / "not" / "there"):
        with pytest.raises(KeyboardInterrupt), _files.stage(folder) as new:
            make(new, NEW)
            raise KeyboardInterrupt
    assert read(tmp_path / "f") == OLD and len(list((tmp_path / "f").iterdir())) == 5
    assert not (tmp_path / "not" / "there").exists()


def test_by_default_every_old_file_goes(tmp_path):
    make(tmp_path, OLD)
    with _files.stage(tmp_path) as new:
        make(new, {"card": "new"})
    assert read(tmp_path) == {"card": "new", "sub/template": "old"}  # of what lies deeper nothing was said


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "results.json"
    _files.write_json(path, {"b": 2, "a": 1})
    assert path.read_text() == '{\n "a": 1,\n "b": 2\n}\n'
    with pytest.raises(TypeError):
        _files.write_json(path, {"a": object()})
    for step in range(3):
        with Disk(step, full=step == 1), pytest.raises((Dead, OSError)):
            _files.write_json(path, {"a": 3})
        assert json.loads(path.read_text())["a"] in (1, 3)
    _files.write_text(path, "naïve")
    assert path.read_text(encoding="utf-8") == "naïve"


def test_describe(tmp_path):
    content = os.urandom(3 * (1 << 20) + 7)
    (tmp_path / "x").write_bytes(content)
    assert _files.describe(tmp_path / "x") == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
