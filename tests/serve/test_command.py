"""`constclf serve` before it serves: help, and mistakes that are told in one line. Each in a process of its own, where
nothing that other tests have imported helps.
"""

import subprocess
import sys

import pytest

BEFORE = "import sys; sys.modules.update(dict.fromkeys(sys.argv[1].split(',')))"  # a None there is a missing module
THEN = "from constclf_lib.cli import main; sys.exit(main(sys.argv[2:]))"


def run(*arguments, without="nothing"):
    command = [sys.executable, "-c", f"{BEFORE}; {THEN}", without, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_help_needs_no_model_and_names_the_keys_variables():
    done = run("serve", "--help", without="torch,transformers,fastapi,uvicorn")
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("--guard", "--upstream", "--trust-roles", "--ui", "CONSTCLF_API_KEY", "CONSTCLF_UPSTREAM_KEY"):
        assert words in done.stdout


@pytest.mark.parametrize("missing", ["uvicorn", "fastapi"])
def test_a_missing_extra_is_one_line_that_says_what_to_install(missing):
    done = run("serve", without=missing)
    wanted = f"constclf serve: {missing} is missing; install the extra: pip install 'constclf-lib[serve]'\n"
    assert (done.returncode, done.stderr, done.stdout) == (2, wanted, "")


def test_mistakes_are_one_line_each():
    for arguments, words in (
        (["serve", "--upstream", "http://127.0.0.1:1/v1"], "--upstream-model"),
        (["serve", "--guard", "no/such/folder"], "no/such/folder"),
        (["sevre"], "invalid choice: 'sevre'"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, "") and words in done.stderr
        assert "Traceback" not in done.stderr
