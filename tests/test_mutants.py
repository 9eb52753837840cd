"""The configuration and the explanations of the mutation tests refer to existing code."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
MODULES = CONFIGURATION["only_mutate"]
TESTS = [path for path in CONFIGURATION["pytest_add_cli_args_test_selection"] if path.startswith("tests/")]
MUTANT = re.compile(r"`(pixyproxy\.[a-z0-9_.]+)\.(?:x_(\w+)|xǁ(\w+)ǁ(\w+))__mutmut_[0-9]+`")
EXPLAINED = MUTANT.findall((ROOT / "docs" / "reference" / "mutants.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES + TESTS)
def test_every_path_of_the_configuration_exists(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize(("module", "function", "owner", "method"), sorted(set(EXPLAINED)), ids=lambda name: name)
def test_every_explanation_names_a_function_of_the_configuration(
    module: str, function: str, owner: str, method: str
) -> None:
    assert f"{module.replace('.', '/')}.py" in MODULES
    names = [function] if function else [owner, method]
    found: object = importlib.import_module(module)
    for name in names:
        found = getattr(found, name)
    assert callable(found)
