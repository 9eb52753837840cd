"""Prose is plain technical English: phrases of an older dialect do not come back.

Docstrings, comments, messages and documentation are checked; identifiers and test data are not prose.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("pixyproxy", "tests", "benchmarks", "scripts")
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path != Path(__file__))
PHRASES = (
    r"whoever",
    r"whosoever",
    r"but for",
    r"any more",
    r"at the most",
    r"of ours",
    r"none the less",
    r"as good as once",
    r"those that there are",
    r"that there are none",
    r"what is kept",
    r"what is (?:asked|told)",
    r"(?:is|are|was|were|be) told",
    r"tells? (?:of|whether|how|what|apart)",
    r"let(?:s|ting)? go of",
    r"what became of",
    r"goes on only",
    r"comes? to an end",
    r"as it is sent",
    r"mend(?:s|ed|ing)",
)
DIALECT = re.compile(rf"\b(?:{'|'.join(PHRASES)})\b", re.IGNORECASE)
MESSAGE_WORDS = 4


def prose_of(source: str) -> list[tuple[int, str]]:
    """Return the line and the text of docstrings, comments and strings of several words."""
    found = [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value.split()) >= MESSAGE_WORDS
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return found + [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def dialect_in(text: str) -> list[str]:
    """Return the phrases of the dialect in a text."""
    return DIALECT.findall(" ".join(text.split()))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_written_in_plain_english(path: Path) -> None:
    found = [(line, dialect_in(text)) for line, text in prose_of(path.read_text(encoding="utf-8"))]
    assert [(line, phrases) for line, phrases in found if phrases] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_is_written_in_plain_english(path: Path) -> None:
    assert dialect_in(path.read_text(encoding="utf-8")) == []
