"""Run the mutation tests. Fail if a mutant survives that docs/reference/mutants.md does not explain."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
MUTMUT = (sys.executable, "-m", "mutmut")
MUTANT = re.compile(r"pixyproxy\.\S+__mutmut_[0-9]+")
FATE = re.compile(rf"({MUTANT.pattern}): (.+)")
NOTICED = ("killed", "timeout", "caught by type check", "skipped", "not checked")


def is_current(mutant: str) -> bool:
    """Return whether the code still has a mutant: mutmut keeps the results of deleted functions."""
    module, _, function = mutant.rpartition(".")
    path = ROOT / "mutants" / f"{module.replace('.', '/')}.py"
    return path.is_file() and f"def {function}(" in path.read_text(encoding="utf-8")


def main(patterns: list[str]) -> int:
    """Test the matching mutants, or all; return the exit code."""
    # The tests of mutants use SQLite alone, so no MariaDB is started for each of them.
    environment = os.environ | {"PIXYPROXY_TEST_MYSQL_URL": "unused"}
    subprocess.run([*MUTMUT, "run", "--max-children", str(os.cpu_count()), *patterns], env=environment, check=True)
    listed = subprocess.run([*MUTMUT, "results"], env=environment, check=True, capture_output=True, text=True).stdout
    explained = set(MUTANT.findall((ROOT / "docs" / "reference" / "mutants.md").read_text(encoding="utf-8")))
    survivors = {name for name, fate in FATE.findall(listed) if fate not in NOTICED and is_current(name)}
    for name in sorted(survivors - explained):
        sys.stdout.write(f"{name} survives: write a test that detects it (mutmut show {name})\n")
    return 1 if survivors - explained else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
