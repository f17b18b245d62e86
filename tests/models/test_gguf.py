"""Which names mean a GGUF file. Reading one needs the package gguf: tests/real/test_gguf_files.py."""

import pytest

from constclf_lib.models.gguf import located


def test_a_path_a_hub_name_and_a_folder(tmp_path):
    (tmp_path / "small.gguf").write_bytes(b"")
    assert located(tmp_path / "small.gguf") == located(tmp_path) == (str(tmp_path), "small.gguf")
    assert located("owner/model/sub/Small.Q4.gguf") == ("owner/model", "sub/Small.Q4.gguf")


def test_other_names_are_no_gguf(tmp_path):
    assert located("owner/model") is None and located(tmp_path) is None
    (tmp_path / "small.gguf").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")  # an ordinary model that brings a GGUF file along
    assert located(tmp_path) is None


def test_several_files_and_a_path_that_is_not_there(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="several GGUF files; name one of them: a.gguf, b.gguf"):
        located(tmp_path)
    for name in ("nothing.gguf", "folder/nothing.gguf"):
        with pytest.raises(ValueError, match="owner/repository/file.gguf"):
            located(name)
