"""`python -m tests.mutants [--count 300] [--seed N] [--out FILE]`: small faults put into the code, one at a time.

Do tests notice? Needs `pip install cosmic-ray pytest-cov`: the first has the operators that make the faults, the second
tells which tests reach a line, and those alone are run. Works on copies of the repository, and goes on where it was
stopped if FILE is there. Prints each fault that no test noticed, as a diff. One that changes nothing that can be seen
is explained in `explained_mutants.toml`; any other is to be answered by a test.
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
_PATIENCE = 3.0
"""Times the tests' own time, and a minute: what takes longer is taken for a hang, which is noticed."""
# Of type annotations, which are broken at once.
_LEFT_OUT = "ReplaceBinaryOperator_BitOr"

# Below `src/charloom`, each with the tests below `tests` that may notice a fault in it.
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
    """One fault: `operator`'s occurrence number `occurrence` in `module`, on the lines from `first` to `last`."""

    package: str
    module: str
    operator: str
    occurrence: int
    first: int
    last: int


def mutants_of(package: str) -> list[Mutant]:
    """Returns every fault that can be put into a package."""
    from cosmic_ray.commands.init import _all_work_items

    place = ROOT / "src" / "charloom" / package
    modules = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    return [
        Mutant(
            package,
            str(module.relative_to(ROOT)),
            fault.operator_name,
            fault.occurrence,
            fault.start_pos[0],
            fault.end_pos[0],
        )
        for module in modules
        for item in _all_work_items([module], {})
        for fault in item.mutations
        if _LEFT_OUT not in fault.operator_name
    ]


class Reach:
    """Which tests reach which lines, as seen where nothing is wrong.

    Args:
        folder: a copy of the repository, in which all tests are run.
        workers: processes that run them.
    """

    def __init__(self, folder: Path, workers: int):
        from coverage import CoverageData

        paths = sorted({f"tests/{one}" for tests in PACKAGES.values() for one in tests})
        said = subprocess.run(
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
        self._failing = set(re.findall(r"^(?:FAILED|ERROR) (tests/\S+(?:\[.*?\])?)(?: - .*)?$", said, re.MULTILINE))
        self._seconds: dict[str, float] = defaultdict(float)
        for seconds, test in re.findall(r"^([\d.]+)s (?:call|setup|teardown) +(tests/.*)$", said, re.MULTILINE):
            self._seconds[test] += float(seconds)
        if not self._seconds or len(self._failing) > len(self._seconds) // 20:
            raise SystemExit(f"the tests fail without any fault:\n{said[-3000:]}")
        for test in sorted(self._failing):
            print(f"left out, since it fails without any fault: {test}", flush=True)
        data = CoverageData(str(folder / ".coverage"))
        data.read()
        self._tests = {
            str(Path(file).relative_to(folder)): data.contexts_by_lineno(file) for file in data.measured_files()
        }

    def of(self, mutant: Mutant) -> list[str]:
        """Returns the tests that reach a fault, the quickest first.

        Of a line that is run when its module is imported these are all that reach the module, and of one that no test
        reaches in this process all that are named in `PACKAGES`.
        """
        lines = self._tests.get(mutant.module, {})
        contexts = {context for line in range(mutant.first, mutant.last + 1) for context in lines.get(line, [])}
        if "" in contexts:
            contexts = {context for reached in lines.values() for context in reached}
        tests, files = set(), set()
        for context in contexts - {""}:
            test, _, phase = context.rpartition("|")
            tests.add(test)
            if phase == "setup":  # perhaps of a fixture that the whole file shares
                files.add(test.partition("::")[0])
        if not tests:
            files = {f"tests/{one}" for one in PACKAGES[mutant.package]}
        tests |= {test for test in self._seconds if any(test.startswith(file) for file in files)}
        return sorted(tests - self._failing, key=lambda test: self._seconds[test])

    def patience(self, tests: list[str]) -> float:
        """Returns the seconds after which tests are taken to hang."""
        return sum(self._seconds[test] for test in tests) * _PATIENCE + 60


def survives(mutant: Mutant, tests: list[str], patience: float) -> str | None:
    """Returns the fault as a diff if none of the tests notices it in this process's copy; None if one does."""
    from cosmic_ray.mutating import _make_diff, use_mutation
    from cosmic_ray.plugins import get_operator

    with use_mutation(Path(mutant.module), get_operator(mutant.operator)(), mutant.occurrence) as (before, after):
        if after is None or not _pass(tests, patience):
            return None
        return "\n".join(_make_diff(before, after, mutant.module)[1:])


def _pass(tests: list[str], patience: float) -> bool:
    """Whether the tests pass, in time."""
    Path("chosen.txt").write_text("\n".join(tests))
    process = subprocess.Popen(
        _pytest("-x", "@chosen.txt"),
        env=_environment(Path.cwd()),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(patience) == 0
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
    """Gives a worker its copy, and the two cores that it shares with its neighbor."""
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
    """Tries faults and prints those that no test noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--count", type=int, default=300, help="faults, drawn from all that there can be")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes side by side")
    parser.add_argument("--out", type=Path, help="a file of what became of each, which a later call continues from")
    asked = parser.parse_args()
    everything = [mutant for package in PACKAGES for mutant in mutants_of(package)]
    drawn = random.Random(asked.seed).sample(everything, min(asked.count, len(everything)))
    known = {}
    if asked.out is not None and asked.out.exists():
        lines = map(json.loads, asked.out.read_text().splitlines())
        known = {Mutant(**line["mutant"]): line["diff"] for line in lines}
    outcomes = {mutant: known[mutant] for mutant in drawn if mutant in known}
    left = [mutant for mutant in drawn if mutant not in known]
    if left:
        for mutant, diff in _tried(left, asked.workers):
            outcomes[mutant] = diff
            if asked.out is not None:
                with asked.out.open("a") as file:
                    file.write(json.dumps({"mutant": asdict(mutant), "diff": diff}) + "\n")
    explanations = tomllib.loads((ROOT / "tests" / "explained_mutants.toml").read_text())["mutants"]
    survivors = [(mutant.module, diff) for mutant, diff in outcomes.items() if diff is not None]
    unexplained = [diff for module, diff in survivors if not _explained(module, diff, explanations)]
    for diff in unexplained:
        print(f"\nno test noticed:\n{diff}")
    print(
        f"\n{len(drawn)} of {len(everything):,} faults, seed {asked.seed}: {len(drawn) - len(survivors)} noticed, "
        f"{len(survivors) - len(unexplained)} explained, {len(unexplained)} neither"
    )
    sys.exit(bool(unexplained))


def _tried(mutants: list[Mutant], workers: int) -> Iterator[tuple[Mutant, str | None]]:
    """Yields each mutant with its diff, or with None where tests noticed it, as they come."""
    with tempfile.TemporaryDirectory(prefix="charloom-mutants-") as name:
        first = Path(name).resolve() / "copy"
        first.mkdir()
        _copy_repository(first)
        reach = Reach(first, workers)
        spawn = multiprocessing.get_context("spawn")
        numbers = spawn.Queue()
        for number in range(workers):
            numbers.put(number)
        with ProcessPoolExecutor(workers, spawn, _begin_in_a_copy, (first, numbers)) as pool:
            tries = {}
            for mutant in mutants:
                tests = reach.of(mutant)
                tries[pool.submit(survives, mutant, tests, reach.patience(tests))] = mutant
            for number, tried in enumerate(as_completed(tries), 1):
                print(f"{number} of {len(tries)}", end="\r", file=sys.stderr, flush=True)
                yield tries[tried], tried.result()


if __name__ == "__main__":
    main()
