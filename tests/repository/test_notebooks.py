"""The shape of every notebook, without running it (running and comparing is nbval's work, see the Makefile).

What is asked for here is described for authors in notebooks/README.md.
"""

import ast
import contextlib
import io
import re
from pathlib import Path

import nbformat
import pytest

from constclf_lib.course import FIRST_CELL, badge
from constclf_lib.course.checks import check

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
KNOWN_TAGS = {"nbval-ignore-output", "nbval-check-output"}
CARD = re.compile(r"^difficulty ([●○]{5}) · importance ([●○]{5}) · (\d+) minutes$", re.M)
HEADING = re.compile(r"^### Exercise (\d+\.\d+) — \S.*$", re.M)
FOLDED = r"<details><summary>{}</summary>\s*\S.*?</details>"
SOLUTION = re.compile(r"<details><summary>Solution</summary>\s*```python\n(.*?)```.*?</details>", re.S)
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|usr|Users|private)/")


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def markdown_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def exercises(notebook):
    """(number, the card's cell, the cells after it) of each exercise."""
    for position, cell in enumerate(notebook.cells):
        found = HEADING.search(cell.source) if cell.cell_type == "markdown" else None
        if found:
            yield found.group(1), cell, notebook.cells[position + 1 : position + 3]


def is_chapter(path):
    return re.match(r"(0[1-9]|1\d)_", path.name) is not None


# --- files


def test_chapters_are_numbered_without_a_gap():
    assert [path.name[:3] for path in PATHS] == [f"{number:02d}_" for number in range(len(PATHS))]


def test_valid_and_small(path, notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert path.stat().st_size < 300 * 1024


def test_metadata_is_the_same_everywhere(notebook):
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert {key for cell in notebook.cells for key in cell.metadata} <= {"tags", "jupyter"}


def test_only_known_tags(notebook):
    assert {tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])} <= KNOWN_TAGS


# --- opening and close


def test_opens_with_title_badge_and_times(path, notebook):
    opening = notebook.cells[0].source
    assert opening.startswith(f"# {path.name[:2]} · ")
    assert badge(f"notebooks/{path.name}") in opening
    assert opening.count("colab.research.google.com/github") == 1
    for words in ("what you will build", "on CPU"):
        assert words.lower() in opening.lower(), f"the first cell should say: {words}"


def test_first_code_cells(notebook):
    first, second = code_cells(notebook)[:2]
    assert first.source == FIRST_CELL and not first.outputs
    assert "lab = setup()" in second.source.splitlines()


def test_takeaways(path, notebook):
    assert any(re.search(r"^## Takeaways$", cell.source, re.M) for cell in markdown_cells(notebook))


# --- outputs


def test_was_restarted_and_run_all(notebook):
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))


def test_no_error_was_saved(notebook):
    assert not [output for output in outputs(notebook) if output.output_type == "error"]


def test_outputs_are_present(notebook):
    for cell in code_cells(notebook):
        if re.search(r"^(print|report|show_\w+|plt\.show|check\.\w+)\(", cell.source, re.M):
            assert cell.outputs, f"this cell should have an output:\n{cell.source}"


def test_outputs_are_stable_and_light(notebook):
    for output in outputs(notebook):
        assert output.get("name") != "stderr", "save with tools/run_notebooks.py"
        assert not [kind for kind in output.get("data", {}) if "widget" in kind], "save with tools/run_notebooks.py"
        assert len(output.get("data", {}).get("image/png", "")) < 137_000, "a picture of more than 100 KB"
        text = output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
        assert not MACHINE_PATH.search(text), f"a path of one machine: {text[:200]}"
        assert not re.search(r"\d%\|.*\| \d+/\d+", text), (
            "a saved progress bar: use `from tqdm import tqdm`, not tqdm.auto"
        )
        assert not re.search(r"object at 0x|<function ", text), f"the output of {text[:80]} differs from run to run"


def test_pictures_have_alternative_text(notebook):
    """Title and content in words. Pictures made by plots/style.py bring them along; a bare pyplot figure does not."""
    for output in outputs(notebook):
        if "image/png" in output.get("data", {}):
            assert len(output.metadata.get("image/png", {}).get("alt", "").split()) >= 5, output.data.get("text/plain")


# --- code and prose


def test_cells_are_short(notebook):
    for cell in code_cells(notebook):
        assert len(cell.source.splitlines()) <= 40, cell.source[:200]


def test_installs_nothing(notebook):
    for cell in code_cells(notebook)[1:]:
        assert not re.search(r"^\s*[!%].*\b(pip|conda|apt)\b", cell.source, re.M), cell.source
        assert "filterwarnings" not in cell.source


def test_links_resolve(path, notebook):
    for cell in markdown_cells(notebook):
        prose = re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
            if not re.match(r"[a-z]+:", target):
                assert (path.parent / target).exists(), f"{target} in {path.name}"


def test_pictures_in_prose_have_alternative_text(notebook):
    for cell in markdown_cells(notebook):
        assert not re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=)", cell.source), cell.source


# --- exercises


def test_at_least_three_exercises_and_a_bug(path, notebook):
    if not is_chapter(path):
        pytest.skip("asked of chapters 01 on")
    assert len(list(exercises(notebook))) >= 3
    bugs = [at for at, cell in enumerate(notebook.cells) if re.search(r"^### Spot the bug", cell.source, re.M)]
    assert bugs
    for at in bugs:
        after = "\n".join(cell.source for cell in notebook.cells[at : at + 4])
        assert re.search(FOLDED.format("Look again"), after, re.S), (
            "fold away what the bug is, as <summary>Look again</summary>"
        )


def test_exercises_belong_to_the_chapter(path, notebook):
    numbers = [number for number, *_ in exercises(notebook)]
    assert numbers == [f"{int(path.name[:2])}.{count}" for count in range(1, len(numbers) + 1)]
    headings = [
        line
        for cell in markdown_cells(notebook)
        for line in cell.source.splitlines()
        if line.startswith("### Exercise")
    ]
    assert len(headings) == len(numbers), f"an exercise's heading reads '### Exercise 5.2 — Ties': {headings}"


def test_exercises_are_complete(notebook):
    for number, card, after in exercises(notebook):
        assert CARD.search(card.source), f"{number}: the card reads 'difficulty ●●○○○ · importance ●●●●○ · 10 minutes'"
        assert re.search(FOLDED.format("Hint"), card.source, re.S), f"{number}: fold a hint into the card's cell"
        stub, solution = after
        assert stub.cell_type == "code" and "..." in stub.source, f"{number}: a stub with ... follows the card"
        name = checked(stub.source)[0]
        assert check.numbers().get(name) == number, (
            f"{number}: check.{name} is the check of {check.numbers().get(name)}"
        )
        assert f"{number} not attempted yet\n" in "".join(output.get("text", "") for output in stub.outputs)
        assert solution.cell_type == "markdown" and SOLUTION.search(solution.source), (
            f"{number}: a folded solution follows the stub"
        )


def checked(source):
    """(name of the check, what it is given) from `check.tie_share(tie_share)`."""
    calls = re.findall(r"^check\.(\w+)\((.+)\)\s*(?:#.*)?$", source, re.M)
    assert len(calls) == 1, f"one check per stub, in the stub's own cell:\n{source}"
    return calls[0]


def definitions(notebook):
    """Imports and functions of the notebook's code cells, executed; cells that run experiments are left out."""
    names = {"__name__": "solution"}
    for cell in code_cells(notebook)[1:]:
        try:
            body = ast.parse(cell.source).body
        except SyntaxError:  # a magic
            continue
        kept = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)]
        with contextlib.suppress(NameError):  # a decorator or a base class that only a run would define
            exec(compile(ast.Module(kept, []), "notebook", "exec"), names)
    return names


def test_folded_solutions_pass_their_checks(notebook):
    """What stands in the fold, with the notebook's imports and functions, is what the check calls ok."""
    names = None
    for number, _, (stub, solution) in exercises(notebook):
        names = names or definitions(notebook)
        exec(SOLUTION.search(solution.source).group(1), names)
        name, given = checked(stub.source)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            getattr(check, name)(eval(given, names))
        assert printed.getvalue().splitlines()[-1] == f"{number} ok", printed.getvalue()
