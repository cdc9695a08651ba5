"""What docs and style promise of the tree, held by reading it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {path: path.relative_to(ROOT) for top in ("adapters", "app") for path in (ROOT / top).rglob("*.py")}
MODULES = {".".join(name.with_suffix("").parts).removesuffix(".__init__"): path for path, name in SOURCES.items()}
LONGEST_FILE = 300
MEANINGLESS = {"utils", "util", "helpers", "helper", "common", "core", "misc"}


def imported_modules(module):
    """Modules of ours that ``module`` imports when it is itself imported; not under TYPE_CHECKING nor in functions."""
    found = set()
    waiting: list[ast.AST] = [ast.parse(MODULES[module].read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        found |= named_in(node, module)
    return found - {module}


def every_import(module):
    """The same, wherever in the file the import stands."""
    return {name for node in ast.walk(ast.parse(MODULES[module].read_text())) for name in named_in(node, module)}


def named_in(node, module):
    if isinstance(node, ast.Import):
        names = {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
        package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
        above = package[: len(package) - node.level + 1] if node.level else []
        base = ".".join([*above, *filter(None, [node.module])])
        names = {base, *(f"{base}.{alias.name}" for alias in node.names)}
    else:
        return set()
    return names & MODULES.keys()


def test_there_is_something_to_read():
    assert "adapters.errors" in MODULES
    assert "adapters.errors" in imported_modules("adapters.store")


@pytest.mark.parametrize("module", sorted(module for module in MODULES if module.startswith("adapters")))
def test_adapters_never_import_app(module):
    assert not [name for name in every_import(module) if name.split(".")[0] == "app"]
    assert not [n for n in ast.walk(ast.parse(MODULES[module].read_text())) if speaks_http(n)]


def speaks_http(node):
    names = [alias.name for alias in getattr(node, "names", [])] if isinstance(node, ast.Import) else []
    names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    return any(name.split(".")[0] in {"fastapi", "starlette", "uvicorn"} for name in names)


@pytest.mark.parametrize("module", sorted(module for module in MODULES if module.startswith("app.engine")))
def test_the_engine_knows_no_http(module):
    assert not [n for n in ast.walk(ast.parse(MODULES[module].read_text())) if speaks_http(n)]


def test_imports_have_no_cycles():
    imports = {module: imported_modules(module) for module in MODULES}
    done: set[str] = set()

    def visit(module, path):
        assert module not in path, "a cycle: " + " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for name in sorted(imports[module]):
                visit(name, [*path, module])
            done.add(module)

    for module in sorted(MODULES):
        visit(module, [])


@pytest.mark.parametrize("path", sorted(SOURCES.values()), ids=str)
def test_files_are_short_and_named_for_what_they_define(path):
    assert len((ROOT / path).read_text().splitlines()) <= LONGEST_FILE
    assert not {*path.parts[:-1], path.stem} & MEANINGLESS


@pytest.mark.parametrize("path", sorted(p for p in SOURCES.values() if p.name == "__init__.py"), ids=str)
def test_packages_say_what_they_are_and_do_nothing(path):
    tree = ast.parse((ROOT / path).read_text())
    assert ast.get_docstring(tree)
    assert not [
        node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.For | ast.If)
    ]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_settings_read_the_environment(module):
    # but for training, which launchers of several processes configure by environment
    if module != "app.settings" and not module.startswith("adapters.training"):
        used = {n.attr for n in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(n, ast.Attribute)}
        assert not used & {"environ", "getenv"}
