"""The property tests with many more cases each than in the test suite."""

import os
import re
import subprocess
import sys
from pathlib import Path

_REPOSITORY = Path(__file__).parents[1]
_TESTS = _REPOSITORY / "tests/scenarios/test_properties.py"


def main(cases: int) -> tuple[int, int, list[str]]:
    """Properties × cases tried, how many of them held, and the names of failed properties."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rf", "--tb=short", str(_TESTS)],
        cwd=_REPOSITORY,
        env={**os.environ, "SATLISA_CASES": str(cases)},
        capture_output=True,
        text=True,
        check=False,
    )
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    lost = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode and not lost:
        lost = [f"the tests did not run: {(done.stdout + done.stderr)[-500:]}"]
    tried = sum(counts.values())
    print(f"  {tried} properties, {cases} cases each")
    if lost:
        print(done.stdout[-6000:])
    return tried * cases, counts.get("passed", 0) * cases, lost
