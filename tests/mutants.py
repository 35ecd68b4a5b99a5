"""`python -m tests.mutants [--count 300] [--seed N]`: small faults put into the code, one at a time; do tests notice?

Needs cosmic-ray, whose operators make the faults (`pip install cosmic-ray`). Works on copies of the repository, two at
a time. Prints each fault that no test noticed, as a diff, and how many there were. A fault that changes nothing that
can be seen is to be explained, every other to be answered by a test.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parents[1]
_TOGETHER = 2
_PATIENCE = 3.0
"""Times the tests' own time, and a minute: what takes longer is taken for a hang, which is noticed."""
# Of type annotations, which are broken at once.
_LEFT_OUT = "ReplaceBinaryOperator_BitOr"


@dataclass(frozen=True)
class Package:
    """Code, and the tests that are to notice faults in it: first those beside it, then those that use it.

    Attributes:
        code: below `src/charloom`.
        tests: stages, each a list of paths below `tests`.
    """

    code: str
    tests: tuple[tuple[str, ...], ...]


PACKAGES = [
    Package("artifacts", (("artifacts",), ("test_model.py", "runs/test_run_folder.py", "cli/test_train.py"))),
    Package("data", (("data",), ("training/test_loop.py", "inference/test_reading.py", "runs"))),
    Package("inference/sampling.py", (("inference/test_sampling.py",), ("inference", "test_model.py"))),
    Package(
        "runs", (("runs",), ("cli/test_resume.py", "cli/test_train.py", "cli/test_budget.py", "cli/test_records.py"))
    ),
    Package("server/guard.py", (("server/test_guard.py",), ("server",))),
]


@dataclass(frozen=True)
class Mutant:
    """One fault: `operator`'s occurrence number `occurrence` in `module`."""

    package: Package
    module: str
    operator: str
    occurrence: int


def mutants_of(package: Package) -> list[Mutant]:
    """Returns every fault that can be put into a package."""
    from cosmic_ray.commands.init import _all_work_items

    place = ROOT / "src" / "charloom" / package.code
    modules = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    return [
        Mutant(package, str(module.relative_to(ROOT)), mutation.operator_name, mutation.occurrence)
        for module in modules
        for item in _all_work_items([module], {})
        for mutation in item.mutations
        if _LEFT_OUT not in mutation.operator_name
    ]


def noticed(mutant: Mutant, patience: float) -> str | None:
    """Returns the fault as a diff if no test of this process's copy notices it; None if one does."""
    from cosmic_ray.mutating import _make_diff, use_mutation
    from cosmic_ray.plugins import get_operator

    with use_mutation(Path(mutant.module), get_operator(mutant.operator)(), mutant.occurrence) as (before, after):
        if after is None:
            return None
        if any(not _pass(stage, patience) for stage in mutant.package.tests):
            return None
        return "\n".join(_make_diff(before, after, mutant.module)[1:])


def _pass(tests: tuple[str, ...], patience: float | None) -> bool:
    """Whether the tests pass, in time."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *(f"tests/{one}" for one in tests)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(Path.cwd() / "src")}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait(patience) == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        return False


def _begin_in_a_copy() -> None:
    copy = Path(tempfile.mkdtemp(prefix="charloom-mutants-"))
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, files)):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    os.chdir(copy)
    os.environ["CHARLOOM_TEST_CACHE"] = str(copy / "cache")


def main() -> None:
    """Tries faults and prints those that no test noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--count", type=int, default=300, help="faults, drawn from all that there can be")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--out", type=Path, help="a file for the survivors, a JSON object a line")
    asked = parser.parse_args()
    everything = [mutant for package in PACKAGES for mutant in mutants_of(package)]
    drawn = random.Random(asked.seed).sample(everything, min(asked.count, len(everything)))
    with ProcessPoolExecutor(_TOGETHER, get_context("spawn"), _begin_in_a_copy) as pool:
        patience = {}
        for package in {mutant.package for mutant in drawn}:
            patience[package] = pool.submit(_seconds_of, package).result() * _PATIENCE + 60
        tries = {mutant: pool.submit(noticed, mutant, patience[mutant.package]) for mutant in drawn}
        survivors = 0
        for number, (mutant, tried) in enumerate(tries.items(), 1):
            if (diff := tried.result()) is not None:
                survivors += 1
                print(f"\nno test noticed number {number}:\n{diff}", flush=True)
                if asked.out is not None:
                    with asked.out.open("a") as file:
                        file.write(json.dumps({"module": mutant.module, "diff": diff}) + "\n")
    print(f"\n{len(drawn)} of {len(everything):,} faults, seed {asked.seed}: {survivors} were not noticed")


def _seconds_of(package: Package) -> float:
    """Returns how long a package's tests take where nothing is wrong."""
    begin = time.monotonic()
    for stage in package.tests:
        if not _pass(stage, None):
            raise SystemExit(f"the tests of {package.code} fail without any fault: {' '.join(stage)}")
    return time.monotonic() - begin


if __name__ == "__main__":
    main()
