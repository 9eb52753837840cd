"""Measure the size of a Python package: lines, functions, classes, and how much modules import each other.

For comparison it names the figures of gafaelfawr, a project of the same field, as of November 2026.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
PEERS = "For comparison, gafaelfawr: 486 functions of 21 lines on average."


@dataclass
class Measurements:
    """The figures of one package. Lines of a function are those of its body without the docstring."""

    lines: list[int] = field(default_factory=list)
    function_lines: list[int] = field(default_factory=list)
    classes: int = 0
    docstring_words: int = 0
    imports: Counter[str] = field(default_factory=Counter)
    """The imported modules of the package, counted by the importing module."""

    def add(self, name: str, source: str, package: str) -> None:
        """Measure one module."""
        tree = ast.parse(source)
        self.lines.append(source.count("\n"))
        self.imports[name] = len(set(imported_modules(tree, package)))
        for node in ast.walk(tree):
            self.classes += isinstance(node, ast.ClassDef)
            if isinstance(node, FUNCTIONS):
                self.function_lines.append(lines_of_body(node))
            if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)):
                self.docstring_words += len((ast.get_docstring(node) or "").split())

    def report(self) -> str:
        """Return the figures as lines of text."""
        hubs = ", ".join(f"{name} {count}" for name, count in self.imports.most_common(5))
        return "\n".join(
            (
                f"modules: {len(self.lines)}, lines: {sum(self.lines)}",
                (
                    f"lines of a module: median {median(self.lines):.0f}, 90 % up to {ninetieth(self.lines)}, "
                    f"longest {max(self.lines)}"
                ),
                f"functions: {len(self.function_lines)}, classes: {self.classes}",
                (
                    f"lines of a function: median {median(self.function_lines):.0f}, "
                    f"90 % up to {ninetieth(self.function_lines)}, longest {max(self.function_lines)}"
                ),
                f"words in docstrings: {self.docstring_words}",
                f"imports within the package, most: {hubs}",
            )
        )


def lines_of_body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def imported_modules(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the modules of the package that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package):
            yield str(node.module)


def ninetieth(values: list[int]) -> int:
    """Return the 90th percentile."""
    return sorted(values)[int(len(values) * 0.9)]


def main(folder: Path) -> None:
    """Print the figures of a package."""
    measured = Measurements()
    for path in sorted(folder.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if source.strip():
            measured.add(".".join(path.relative_to(folder).with_suffix("").parts), source, folder.name)
    sys.stdout.write(f"{measured.report()}\n{PEERS}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "pixyproxy"))
