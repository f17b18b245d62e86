"""The house as its readers meet it: one address per name, notebooks that use front doors only, a core that needs and
loads little, one version. The direction of imports itself is the import-linter's (`make lint`)."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest

import constclf_lib

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "constclf_lib"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# what brings the import
SAYS = {"yaml": "PyYAML", "sklearn": "scikit-learn", "PIL": "Pillow", "IPython": "ipykernel"}
SAYS["inspect_ai"] = "inspect-ai"
# who may import what: the groups of requirements.txt that a floor can count on
LAB = ("core", "lab", "lora", "writers")
MAY_IMPORT = {
    **dict.fromkeys(("lab", "recipes", "build"), LAB),
    **dict.fromkeys(("course", "public_data", "scoring"), (*LAB, "course")),  # datasets, where a hub is asked
    "serve": ("core", "serve"),
    "adapters": ("core", "inspect", "garak"),
}


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def name_of(path):
    """The dotted name of a module of the library, () for the top."""
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {name_of(path): path for path in LIBRARY.rglob("*.py")}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def is_package(name):
    return MODULES[name].name == "__init__.py"


def imports(tree, name=()):
    """(dotted module as parts, imported name or None, parts that are the library's) of every import in a tree."""
    package = name if not name or is_package(name) else name[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split(".")), None
        elif isinstance(node, ast.ImportFrom):
            base = ("constclf_lib", *package[: len(package) - node.level + 1]) if node.level else ()
            for alias in node.names:
                yield (*base, *(node.module or "").split(".")) if node.module else base, alias.name


def defined(tree):
    """Names that a module makes at its top level, imports left aside."""
    for node in tree.body:
        for inner in [node, *(ast.walk(node) if isinstance(node, ast.If | ast.Try | ast.With) else ())]:
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield inner.name
            elif isinstance(inner, ast.Assign | ast.AnnAssign):
                targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
                yield from (n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))


def exported(tree):
    """`__all__`, or None."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def own(module):
    """The module's parts below constclf_lib, or None for somebody else's."""
    return module[1:] if module[0] == "constclf_lib" else None


# --- one address per name


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name and is_package(name)), ids=".".join)
def test_a_package_hands_on_its_own_names_only(name):
    given = []
    for module, imported in imports(TREES[name], name):
        below = own(module)
        if module[0] in sys.stdlib_module_names:
            continue
        assert below is not None and below[: len(name)] == name and len(below) > len(name), (
            f"{'.'.join(name)} imports {imported} from {'.'.join(module)}, which is not inside it"
        )
        assert imported in set(defined(TREES[below])) | set(exported(TREES[below]) or ()), (
            f"{imported} is not made in {'.'.join(below)}"
        )
        given.append(imported)
    public = exported(TREES[name])
    assert sorted(given) == (public or []), "__all__ is sorted and lists what is imported, neither more nor less"


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name and not is_package(name)), ids=".".join)
def test_a_module_takes_each_name_from_where_it_is_made(name):
    """From a neighbour's front door, or from a file of its own package that defines it: nobody re-exports."""
    for module, imported in imports(TREES[name], name):
        below = own(module)
        if not below or (*below, imported) in MODULES:  # somebody else's, or a module itself
            continue
        if below[0] != name[0] and exported(TREES[below[:1]]):  # recipes exports nothing: build opens its files
            assert is_package(below) or len(below) == 1, f"import {imported} from {below[0]}, not from {below[1]} in it"
        made = exported(TREES[below]) if is_package(below) else set(defined(TREES[below]))
        assert imported in made, f"{imported} is not made in {'.'.join(below)}"


@pytest.mark.parametrize("name", ["recipes.measure", "course.plots.scores", "lab.writers.journal"])
def test_the_rules_above_look_at_something(name):
    assert any(own(module) for module, _ in imports(TREES[tuple(name.split("."))], tuple(name.split("."))))


def test_top_level_names_are_those_that_the_packages_export():
    for name in constclf_lib.__all__:
        value = getattr(constclf_lib, name)
        if name != "__version__":
            home = (constclf_lib._PACKAGE_OF[name],)
            assert name in (exported(TREES[home]) or set(defined(TREES[home]))) and value.__name__ == name
    in_editors = {
        alias.asname for node in ast.walk(TREES[()]) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert in_editors - {None} == set(constclf_lib.__all__) - {"__version__"}


# --- notebooks and prose go through the front door


def python_of(notebook):
    """The code of a notebook, that of its folded solutions included; magics left out."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts = [source] if cell["cell_type"] == "code" else re.findall(r"```python\n(.*?)```", source, re.S)
        for part in parts:
            yield "\n".join(line for line in part.splitlines() if not line.lstrip().startswith(("!", "%")))


def front_doors_only(code):
    """The library's imports in a piece of code that reach for a file inside a package."""
    wrong = []
    for module, imported in imports(ast.parse(code)):
        below = own(module)
        if below is None:
            continue
        names_a_file = imported and (*below, imported) in MODULES and not is_package((*below, imported))
        hidden = names_a_file and below and imported not in (exported(TREES[below]) or ())
        if hidden or (len(below) > 1 and not is_package(below)):
            wrong.append(".".join(module) + (f".{imported}" if hidden else ""))
    return wrong


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_import_from_packages(path):
    found = [code for code in python_of(path) if "constclf_lib" in code]
    assert found
    assert not [wrong for code in found for wrong in front_doors_only(code)]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/index.md"])
def test_prose_imports_from_packages(name):
    for code in re.findall(r"```python\n(.*?)```", text(name), re.S):
        assert not front_doors_only(code)


@pytest.mark.parametrize(
    "code, wrong",
    [
        ("from constclf_lib.models.value_head import ValueHead", ["constclf_lib.models.value_head"]),
        ("import constclf_lib.guard.text", ["constclf_lib.guard.text"]),
        ("from constclf_lib.models import cache", ["constclf_lib.models.cache"]),
        ("def f():\n    from constclf_lib.streaming.reader import Reader", ["constclf_lib.streaming.reader"]),
        ("from constclf_lib import losses, data_path\nfrom constclf_lib.losses import annealed_bce", []),
        ("from constclf_lib.course.checks import check\nfrom constclf_lib.models import perplexity", []),
        ("import torch.nn.functional as F", []),
    ],
)
def test_a_back_door_is_noticed(code, wrong):
    assert front_doors_only(code) == wrong


def test_what_is_named_in_prose_exists(files):
    """`constclf_lib/x.py` and constclf_lib.x in code, chapters and prose: a module, or a top-level name."""
    for path in files:
        if path.suffix not in {".py", ".md", ".ipynb", ".yml", ".toml"} or path.is_relative_to(ROOT / "tests"):
            continue
        content = path.read_text(encoding="utf-8")
        for found in re.findall(r"constclf_lib/([\w/]+)\.py", content):
            assert (LIBRARY / f"{found}.py").exists(), f"{path.relative_to(ROOT)} names constclf_lib/{found}.py"
        for found in re.findall(r"constclf_lib\.([a-z]\w*)", content):
            named = (found,) in MODULES or found in constclf_lib.__all__ or found.startswith("__")
            assert named, f"{path.relative_to(ROOT)} names constclf_lib.{found}"


def contracts():
    """The sections of .importlinter."""
    parser = ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser


def test_the_tree_on_the_first_page_is_the_house():
    page = text("docs/index.md")
    tree = re.search(r"```text\nconstclf_lib/.*?```", page, re.S).group(0)
    shown = re.findall(r"^  (\w+/?)  ", tree, re.M)
    there = {name[0] + "/" * is_package(name) for name in MODULES if len(name) == 1}
    assert there - set(shown) <= {name for name in there if name.startswith("_")}, "a new room wants a line in the tree"
    assert set(shown) <= there
    floors = contracts()["importlinter:contract:floors"]["layers"].replace("constclf_lib.", "").split("\n")
    floors = [{room.strip() for room in floor.split("|")} for floor in floors if floor]
    arrows = " ".join(re.search(r"```text\ncli >(.*?)```", page, re.S).group(0).splitlines()[1:-1])
    assert [{room.strip() for room in floor.split("|")} for floor in arrows.split(">")] == floors
    ground_first = {room: number for number, floor in enumerate(reversed(floors)) for room in floor}
    order = [ground_first[room.rstrip("/")] for room in shown]
    assert order == sorted(order), "the tree begins at the ground floor"


# --- what a floor needs, and what it loads


def groups():
    """{group: {package}} of requirements.txt; tests/repository/test_requirements.py holds pyproject's extras to it."""
    found = {}
    for line in (text("requirements.txt") + text("requirements-adapters.txt")).splitlines():
        if heading := re.match(r"# --- (\w+)\b", line):
            group = found.setdefault(heading.group(1), set())
        elif line and not line.startswith("#"):
            group.add(re.match(r"[\w-]+", line).group(0).lower())
    return found


def exceptions():
    """(module, somebody else's package) of each arrow that .importlinter lets through."""
    for contract in contracts().values():
        for arrow in filter(None, contract.get("ignore_imports", "").split("\n")):
            module, package = arrow.split(" -> ")
            yield tuple(module.split(".")[1:]), package


def test_every_floor_imports_only_what_its_extra_brings():
    brought, excused = groups(), set(exceptions())
    for name, tree in TREES.items():
        allowed = set().union(*(brought[group] for group in MAY_IMPORT.get(name[0] if name else "", ("core",))))
        for module, _ in imports(tree, name):
            if own(module) is None and module[0] not in sys.stdlib_module_names and (name, module[0]) not in excused:
                wanted = SAYS.get(module[0], module[0]).lower()
                assert wanted in allowed, f"{'.'.join(name)} imports {module[0]}, which its extra does not bring"


def test_the_core_brings_nothing_that_it_does_not_use():
    used = {
        module[0].lower()
        for name, tree in TREES.items()
        if name and name[0] not in MAY_IMPORT
        for module, _ in imports(tree, name)
    }
    # the Trainer asks for accelerate, AutoTokenizer for tokenizers; neither is imported by name in the core
    assert groups()["core"] - used <= {"accelerate", "tokenizers"}


@pytest.mark.parametrize(
    "code, absent",
    [
        ("import constclf_lib", "torch numpy transformers pandas"),
        ("import constclf_lib.errors", "torch numpy transformers"),
        (
            "from constclf_lib.losses import annealed_bce",
            "transformers pandas sklearn matplotlib scipy yaml",
        ),
        ("from constclf_lib.evaluation import wilson_interval", "torch transformers pandas sklearn matplotlib"),
        ("from constclf_lib.guard import GuardedModel", "pandas sklearn matplotlib openai peft constclf_lib.lab"),
    ],
)
def test_what_an_import_does_not_load(code, absent):
    """Beyond what transformers brings along by itself where we generate: before 5.23 that was scikit-learn."""
    first = "import transformers.generation.candidate_generator" if "guard" in code else ""
    script = f"import sys\n{first}\nbefore = set(sys.modules)\n{code}\nafter = set(sys.modules) - before"
    shown = subprocess.run(
        [sys.executable, "-c", f"{script}\nprint(*after.intersection({absent.split()}))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not shown.stdout.split()


# --- one version


def test_the_version_stands_once():
    pyproject = tomllib.loads(text("pyproject.toml"))
    assert "version" in pyproject["project"]["dynamic"]
    assert pyproject["tool"]["hatch"]["version"]["path"] == "constclf_lib/__init__.py"
    version = constclf_lib.__version__
    assert re.search(r"^## \[(\d[\w.]*)\]", text("CHANGELOG.md"), re.M).group(1) == version
    assert re.search(r"^version: (\S+)$", text("CITATION.cff"), re.M).group(1) == version
