"""No coroutine touches a file: a hanging disk must block only the work that needs it.

The test walks the source. Calls that wait for a disk belong in plain functions, which coroutines run in a thread.
Functions of modules and methods of ``self`` are resolved exactly. A method of another object counts as blocking only if
all methods of that name wait for a disk.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
FILE_METHODS = frozenset({
    "chmod", "exists", "glob", "hardlink_to", "is_dir", "is_file", "iterdir", "lstat", "mkdir", "open", "read_bytes",
    "read_text", "readlink", "resolve", "rglob", "rmdir", "samefile", "stat", "symlink_to", "touch", "unlink",
    "write_bytes", "write_text",
})  # fmt: skip
"""Of ``pathlib.Path``. ``replace`` and ``rename`` are left out because strings and models have them too."""
FILE_MODULES = frozenset({"fcntl", "os", "shutil", "tempfile"})
FILE_FUNCTIONS = frozenset({"SpooledTemporaryFile", "TemporaryDirectory", "TemporaryFile", "open"})
HARMLESS = frozenset({"os.getpid", "os.getuid", "os.strerror", "os.umask"})
PROPERTIES = frozenset({"cached_property", "property"})
OF_BUILTINS = frozenset(name for kind in (str, bytes, list, dict, set) for name in dir(kind))

COMMANDS = frozenset({"pixyproxy.service.doctor"})
"""Modules whose event loops run nothing else."""

Key = tuple[str, str, str]
"""A module, its class (if any), and the function's name."""


class Use(NamedTuple):
    """A function that is called or a property that is read: its key, or only its name if the key is unknown."""

    line: int
    asked: Key | str
    is_called: bool


@dataclass
class Routine:
    """A function and its own operations, without those of functions it defines or awaits."""

    is_async: bool
    is_property: bool
    touches: list[int] = field(default_factory=list)
    """Lines on which the function itself touches a file."""
    asks: list["Use"] = field(default_factory=list)


def own_nodes(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    """Yield every node that runs when the function runs."""
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)


def is_self(node: ast.AST) -> bool:
    """Return whether the node is ``self``."""
    return isinstance(node, ast.Name) and node.id == "self"


def touches_files(call: ast.Call) -> bool:
    """Return whether the call is a standard library call that waits for a disk."""
    written = ast.unparse(call.func)
    if isinstance(call.func, ast.Attribute):
        if is_self(call.func.value):
            return False
        is_of_files = written.partition(".")[0] in FILE_MODULES or call.func.attr in FILE_METHODS
        return is_of_files and written not in HARMLESS
    return written in FILE_FUNCTIONS


def read_routine(
    node: ast.FunctionDef | ast.AsyncFunctionDef, module: str, owner: str, imported: Mapping[str, Key]
) -> Routine:
    """Return the uses and file accesses of one function."""
    decorators = {each.id for each in node.decorator_list if isinstance(each, ast.Name)}
    routine = Routine(isinstance(node, ast.AsyncFunctionDef), bool(decorators & PROPERTIES))
    nodes = list(own_nodes(node))
    awaited = {each.value for each in nodes if isinstance(each, ast.Await)}
    awaited_functions = {each.func for each in awaited if isinstance(each, ast.Call)}
    called = {each.func for each in nodes if isinstance(each, ast.Call)}
    for each in nodes:
        if isinstance(each, ast.Call) and each not in awaited:
            if touches_files(each):
                routine.touches.append(each.lineno)
            elif isinstance(each.func, ast.Name):
                called_function = imported.get(each.func.id, (module, "", each.func.id))
                routine.asks.append(Use(each.lineno, called_function, is_called=True))
        if isinstance(each, ast.Attribute) and each not in awaited_functions:
            asked = (module, owner, each.attr) if is_self(each.value) else each.attr
            routine.asks.append(Use(each.lineno, asked, is_called=each in called))
    return routine


def read_source(source: str, module: str) -> dict[Key, Routine]:
    """Return every function of a module by key. A nested function's key is its own name."""
    tree = ast.parse(source)
    imported = {
        alias.asname or alias.name: (each.module or "", "", alias.name)
        for each in ast.walk(tree)
        if isinstance(each, ast.ImportFrom)
        for alias in each.names
    }
    routines: dict[Key, Routine] = {}

    def walk(node: ast.AST, owner: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                routines[module, owner, child.name] = read_routine(child, module, owner, imported)
            walk(child, child.name if isinstance(child, ast.ClassDef) else owner)

    walk(tree, "")
    return routines


def blocked_coroutines(sources: Mapping[str, str]) -> list[str]:
    """Return the places where coroutines wait for a disk, as ``module:line``."""
    routines: dict[Key, Routine] = {}
    for module, source in sources.items():
        routines |= read_source(source, module)
    named: dict[str, list[Key]] = defaultdict(list)
    for key in routines:
        if key[1]:
            named[key[2]].append(key)
    blocking: set[Key] = set()

    def blocks(use: Use) -> bool:
        if use.asked in OF_BUILTINS:
            return False
        meant = [use.asked] if isinstance(use.asked, tuple) else named[use.asked]
        return bool(meant) and all(key in blocking and routines[key].is_property != use.is_called for key in meant)

    while True:
        found = {
            key
            for key, routine in routines.items()
            if not routine.is_async and (routine.touches or any(map(blocks, routine.asks)))
        }
        if found == blocking:
            break
        blocking |= found
    return sorted(
        f"{key[0]}:{line}"
        for key, routine in routines.items()
        if routine.is_async
        for line in {*routine.touches, *(use.line for use in routine.asks if blocks(use))}
    )


def test_no_coroutine_waits_for_a_disk() -> None:
    paths = sorted((ROOT / "pixyproxy").rglob("*.py"))
    sources = {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text() for path in paths}
    assert [place for place in blocked_coroutines(sources) if place.partition(":")[0] not in COMMANDS] == []


HELPERS = """
def load(path): return path.read_bytes()
def load_all(paths): return [load(path) for path in paths]
class Kept:
    @property
    def content(self): return load(self.path)
    def fetch(self): return self.content
"""


@pytest.mark.parametrize(
    "statement",
    [
        "path.is_file()",
        "with path.open() as file: pass",
        "open('x')",
        "os.replace('x', 'y')",
        "[each.stat() for each in paths]",
        "shutil.rmtree(path)",
        "load(path)",
        "load_all(paths)",
        "kept.content",
        "kept.fetch()",
        "self.look()",
    ],
)
def test_the_walk_finds_calls_that_wait_for_a_disk(statement: str) -> None:
    coroutine = f"""
from a import load, load_all
class Worker:
    def look(self): os.listdir('.')
    async def work(self, kept, path, paths):
        {statement}
"""
    assert blocked_coroutines({"a": HELPERS, "b": coroutine}) == ["b:6"]


@pytest.mark.parametrize(
    "statement",
    [
        "await run_in_thread(load, path)",
        "await run_in_thread(path.read_bytes)",
        "await run_in_thread(lambda: load(path))",
        "await spool.open()",
        "await run_in_thread(kept.fetch)",
        "text.replace('x', 'y')",
        "os.getpid()",
    ],
)
def test_the_walk_ignores_work_done_in_a_thread(statement: str) -> None:
    coroutine = f"from a import load\nasync def work(kept, path, spool, text):\n    {statement}\n"
    assert blocked_coroutines({"a": HELPERS, "b": coroutine}) == []
