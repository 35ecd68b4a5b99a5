"""`python -m tests.mutants [--count 300] [--seed N] [--out FILE]`: mutation testing.

It puts one small fault (a mutant) at a time into a copy of the repository, and runs the tests that reach it.
It needs `pip install cosmic-ray pytest-cov`. cosmic-ray makes the mutants, and pytest-cov finds the tests that reach a
line. If FILE exists, the run continues from there.

It prints each mutant that survives as a diff. A survivor that does not change the behavior is explained in
`explained_mutants.toml`. Any other survivor needs a test.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_TIMEOUT_FACTOR = 3.0
"""Tests that take longer than this times their usual time plus a minute count as hanging, and as failed."""
# This operator only changes type annotations, and the module then fails at import.
_EXCLUDED_OPERATOR = "ReplaceBinaryOperator_BitOr"

# Packages and modules in `src/charloom`, with the tests in `tests` that may detect a mutant in them.
PACKAGES = {
    "artifacts": ("artifacts", "test_model.py", "runs/test_run_folder.py", "cli/test_train.py"),
    "data": ("data", "training/test_loop.py", "inference/test_reading.py", "runs"),
    "inference/sampling.py": ("inference", "test_model.py"),
    "runs": (
        "runs",
        "cli/test_resume.py",
        "cli/test_train.py",
        "cli/test_budget.py",
        "cli/test_repeat.py",
        "cli/test_records.py",
    ),
    "server/guard.py": ("server",),
}


@dataclass(frozen=True)
class Mutant:
    """One mutant: occurrence `occurrence` of `operator` in `module`, on the lines from `first` to `last`."""

    package: str
    module: str
    operator: str
    occurrence: int
    first: int
    last: int


def mutants_of(package: str) -> list[Mutant]:
    """Returns all mutants of a package."""
    from cosmic_ray.commands.init import _all_work_items

    place = ROOT / "src" / "charloom" / package
    modules = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    return [
        Mutant(
            package,
            str(module.relative_to(ROOT)),
            mutation.operator_name,
            mutation.occurrence,
            mutation.start_pos[0],
            mutation.end_pos[0],
        )
        for module in modules
        for item in _all_work_items([module], {})
        for mutation in item.mutations
        if _EXCLUDED_OPERATOR not in mutation.operator_name
    ]


class Coverage:
    """Which tests reach which lines, measured without a mutant.

    Args:
        folder: a copy of the repository, where all tests are run.
        workers: the number of processes that run them.
    """

    def __init__(self, folder: Path, workers: int):
        from coverage import CoverageData

        paths = sorted({f"tests/{one}" for tests in PACKAGES.values() for one in tests})
        output = subprocess.run(
            [
                *_pytest("-n", str(workers), "--durations=0", "--durations-min=0", "-vv"),
                *("--continue-on-collection-errors", "--cov=src/charloom", "--cov-context=test", "--cov-report="),
                *paths,
            ],
            cwd=folder,
            env=_environment(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        ).stdout
        self._failing = set(re.findall(r"^(?:FAILED|ERROR) (tests/\S+(?:\[.*?\])?)(?: - .*)?$", output, re.MULTILINE))
        self._seconds: dict[str, float] = defaultdict(float)
        for seconds, test in re.findall(r"^([\d.]+)s (?:call|setup|teardown) +(tests/.*)$", output, re.MULTILINE):
            self._seconds[test] += float(seconds)
        if not self._seconds or len(self._failing) > len(self._seconds) // 20:
            raise SystemExit(f"the tests fail without a mutant:\n{output[-3000:]}")
        for test in sorted(self._failing):
            print(f"left out because it fails without a mutant: {test}", flush=True)
        data = CoverageData(str(folder / ".coverage"))
        data.read()
        self._tests = {
            str(Path(file).relative_to(folder)): data.contexts_by_lineno(file) for file in data.measured_files()
        }

    def tests_for(self, mutant: Mutant) -> list[str]:
        """Returns the tests that reach a mutant, the fastest first.

        If the line runs when its module is imported, these are all tests that reach the module. If no test reaches the
        line in this process, these are all tests in `PACKAGES`.
        """
        lines = self._tests.get(mutant.module, {})
        contexts = {context for line in range(mutant.first, mutant.last + 1) for context in lines.get(line, [])}
        if "" in contexts:
            contexts = {context for reached in lines.values() for context in reached}
        tests, files = set(), set()
        for context in contexts - {""}:
            test, _, phase = context.rpartition("|")
            tests.add(test)
            if phase == "setup":  # the fixture may be shared by the whole file
                files.add(test.partition("::")[0])
        if not tests:
            files = {f"tests/{one}" for one in PACKAGES[mutant.package]}
        tests |= {test for test in self._seconds if any(test.startswith(file) for file in files)}
        return sorted(tests - self._failing, key=lambda test: self._seconds[test])

    def timeout(self, tests: list[str]) -> float:
        """Returns the seconds after which tests count as hanging."""
        return sum(self._seconds[test] for test in tests) * _TIMEOUT_FACTOR + 60


def survives(mutant: Mutant, tests: list[str], timeout: float) -> str | None:
    """Returns the mutant as a diff if it survives the tests in this process's copy; None if a test fails."""
    from cosmic_ray.mutating import _make_diff, use_mutation
    from cosmic_ray.plugins import get_operator

    with use_mutation(Path(mutant.module), get_operator(mutant.operator)(), mutant.occurrence) as (before, after):
        if after is None or not _pass(tests, timeout):
            return None
        return "\n".join(_make_diff(before, after, mutant.module)[1:])


def _pass(tests: list[str], timeout: float) -> bool:
    """Returns whether the tests pass in time."""
    Path("chosen.txt").write_text("\n".join(tests))
    process = subprocess.Popen(
        _pytest("-x", "@chosen.txt"),
        env=_environment(Path.cwd()),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(timeout) == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        return False


def _pytest(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]


def _environment(folder: Path) -> dict[str, str]:
    own = {"PYTHONDONTWRITEBYTECODE": "1", "CHARLOOM_TEST_CACHE": str(folder / "cache")}
    paths = [str(folder / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **own, "PYTHONPATH": os.pathsep.join(paths)}


def _copy_repository(folder: Path) -> None:
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, files)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)


def _begin_in_a_copy(first: Path, numbers: "multiprocessing.Queue[int]") -> None:
    """Gives a worker its copy of the repository, and two cores that it shares with another worker."""
    number = numbers.get()
    copy = first.with_name(f"{first.name}{number}")
    copy.mkdir()
    _copy_repository(copy)
    shutil.copytree(first / "cache", copy / "cache")
    os.chdir(copy)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        pair = number // 2 * 2 % len(cores)
        os.sched_setaffinity(0, cores[pair : pair + 2])


def _explained(module: str, diff: str, explanations: list[dict[str, str]]) -> bool:
    removed, added = (
        "\n".join(line[1:].strip() for line in diff.splitlines() if re.match(rf"\{sign}(?!\{sign}\{sign})", line))
        for sign in "-+"
    )
    found = module, removed, added
    return any((one["module"], one["before"].strip(), one["after"].strip()) == found for one in explanations)


def main() -> None:
    """Tests mutants and prints those that survive."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--count", type=int, default=300, help="Number of mutants, drawn at random.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed of the draw.")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="Number of parallel processes.")
    parser.add_argument("--out", type=Path, help="File of results that a later call continues from.")
    arguments = parser.parse_args()
    everything = [mutant for package in PACKAGES for mutant in mutants_of(package)]
    drawn = random.Random(arguments.seed).sample(everything, min(arguments.count, len(everything)))
    known = {}
    if arguments.out is not None and arguments.out.exists():
        lines = map(json.loads, arguments.out.read_text().splitlines())
        known = {Mutant(**line["mutant"]): line["diff"] for line in lines}
    outcomes = {mutant: known[mutant] for mutant in drawn if mutant in known}
    remaining = [mutant for mutant in drawn if mutant not in known]
    if remaining:
        for mutant, diff in _tested(remaining, arguments.workers):
            outcomes[mutant] = diff
            if arguments.out is not None:
                with arguments.out.open("a") as file:
                    file.write(json.dumps({"mutant": asdict(mutant), "diff": diff}) + "\n")
    explanations = tomllib.loads((ROOT / "tests" / "explained_mutants.toml").read_text())["mutants"]
    survivors = [(mutant.module, diff) for mutant, diff in outcomes.items() if diff is not None]
    unexplained = [diff for module, diff in survivors if not _explained(module, diff, explanations)]
    for diff in unexplained:
        print(f"\nsurvived:\n{diff}")
    print(
        f"\n{len(drawn)} of {len(everything):,} mutants, seed {arguments.seed}: {len(drawn) - len(survivors)} killed, "
        f"{len(survivors) - len(unexplained)} explained, {len(unexplained)} survived"
    )
    sys.exit(bool(unexplained))


def _tested(mutants: list[Mutant], workers: int) -> Iterator[tuple[Mutant, str | None]]:
    """Yields each mutant with its diff, or with None if a test failed, in the order of completion."""
    with tempfile.TemporaryDirectory(prefix="charloom-mutants-") as name:
        first = Path(name).resolve() / "copy"
        first.mkdir()
        _copy_repository(first)
        coverage = Coverage(first, workers)
        spawn = multiprocessing.get_context("spawn")
        numbers = spawn.Queue()
        for number in range(workers):
            numbers.put(number)
        with ProcessPoolExecutor(workers, spawn, _begin_in_a_copy, (first, numbers)) as pool:
            futures = {}
            for mutant in mutants:
                tests = coverage.tests_for(mutant)
                futures[pool.submit(survives, mutant, tests, coverage.timeout(tests))] = mutant
            for number, future in enumerate(as_completed(futures), 1):
                print(f"{number} of {len(futures)}", end="\r", file=sys.stderr, flush=True)
                yield futures[future], future.result()


if __name__ == "__main__":
    main()
