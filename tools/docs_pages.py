"""What `make docs` needs beside mkdocs.yml: more pages, links that leave docs/, and quieter signatures.

MkDocs calls the `on_...` functions; the reader of docstrings calls `Fields`. A public class or function that no page
shows stops the build.
"""

import ast
import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "constclf_lib"
PROSE = {  # pages of the site that stand elsewhere in the repository
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "data.md": "data/README.md",
}
NOT_API = {"course.checks"}  # an exercise asks for them through `check`


# --- pages and links


def on_files(files, config):
    """Add the repository's own prose, and put into the table of contents whatever mkdocs.yml does not name."""
    for name, source in PROSE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    named = str(config.nav)
    config.nav += [file.src_uri for file in files.documentation_pages() if f"'{file.src_uri}'" not in named]
    return files


def on_page_markdown(markdown, page, config, files):
    """Links are written as they hold in the repository; those to what is no page lead to the repository's address."""
    pages = {f"docs/{file.src_uri}": file.src_uri for file in files} | {source: page for page, source in PROSE.items()}
    here = PROSE.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def link(found):
        target, _, part = found.group(1).partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return found.group(0)
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        if target in pages:
            url = posixpath.relpath(pages[target], posixpath.dirname(page.file.src_uri) or ".")
        else:
            url = f"{config.repo_url}/blob/main/{target}"
        return f"]({url}{'#' * bool(part)}{part})"

    return re.sub(r"\]\(([^)\s]+)\)", link, markdown)


# --- docstrings


class Fields(griffe.Extension):
    """The fields of a NamedTuple stand in its signature, as those of a dataclass do; an attribute that has no words of
    its own, or a value longer than a line, is not shown twice."""

    def on_package(self, *, pkg, **_):
        for module in [pkg, *modules(pkg)]:
            for member in module.members.values():
                if member.is_alias:
                    continue
                if member.is_class:
                    self.tidy(member)
                elif member.is_attribute and len(str(member.value)) > 100:
                    member.value = None

    def tidy(self, cls):
        own = [member for member in cls.members.values() if not member.is_alias and member.is_attribute]
        if "NamedTuple" in map(str, cls.bases) and "__init__" not in cls.members:
            keyword = griffe.ParameterKind.positional_or_keyword
            fields = [griffe.Parameter(m.name, annotation=m.annotation, kind=keyword, default=m.value) for m in own]
            cls["__init__"] = griffe.Function("__init__", parameters=griffe.Parameters(*fields))
        for name, member in list(cls.members.items()):
            dunder = name.startswith("__") and name != "__init__"
            if not member.is_alias and not member.docstring and (member.is_attribute or dunder):
                del cls.members[name]


def modules(package):
    for module in package.modules.values():
        if not module.is_alias:
            yield module
            yield from modules(module)


# --- completeness


def public_names():
    """(dotted package, name) of every name that a package exports, constants left aside."""
    for path in sorted(LIBRARY.glob("**/__init__.py"))[1:]:
        package = ".".join(path.parent.relative_to(LIBRARY).parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__" and package not in NOT_API:
                yield from ((package, name) for name in ast.literal_eval(node.value) if not name.isupper())


def on_post_build(config):
    """Every public class and function has its place on a page."""
    pages = "".join(path.read_text(encoding="utf-8") for path in Path(config.site_dir, "api").glob("*.html"))
    shown = set(re.findall(r'id="constclf_lib\.([\w.]+)"', pages))
    # where a function bears its module's name, the page asks for it by its whole path
    missing = [f"{p}.{n}" for p, n in public_names() if not {f"{p}.{n}", f"{p}.{n}.{n}"} & shown]
    if missing:
        raise PluginError(f"no page of docs/api shows {', '.join(missing)}")
