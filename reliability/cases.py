"""Run the robustness tests, slow ones too, and keep how many passed, by file.

python reliability/cases.py
"""

import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from keeping import keep

ROOT = Path(__file__).resolve().parent.parent


def counted(report: Path) -> dict[str, dict[str, int]]:
    """Count the tests of a JUnit report by file."""
    files: dict[str, dict[str, int]] = defaultdict(lambda: {"tried": 0, "passed": 0})
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("classname", "").rpartition(".")[2].removeprefix("test_")
        files[name]["tried"] += 1
        files[name]["passed"] += not any(child.tag in ("failure", "error") for child in case)
    return dict(sorted(files.items()))


def main() -> None:
    """Run the tests and keep the counts."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-m", "pytest", "-q", "-m", "slow or not slow", f"--junitxml={report}"]
        done = subprocess.run([sys.executable, *words, "tests/robustness"], check=False, cwd=ROOT)
        keep("cases", {"code": done.returncode, "files": counted(report)})


if __name__ == "__main__":
    main()
