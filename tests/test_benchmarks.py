"""Benchmarks are run by hand. That they can be imported is checked here, and how their tables choose the best peer."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import limit, texts, workers

# In a separate process, because imports of benchmarks, such as Keras, change the whole process.
_IMPORT_ALL = """
import importlib, inspect, pkgutil
import benchmarks
from benchmarks.workloads import SAMPLING, SCORING, TRAINING

imported = 0
for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks."):
    if module.name.endswith("__main__"):
        continue
    try:
        imported_module = importlib.import_module(module.name)
        imported += 1
        if module.name.startswith("benchmarks.peers."):  # which get a workload as JSON
            for task, workload in {"train": TRAINING[0], "generate": SAMPLING[0], "score": SCORING}.items():
                if function := getattr(imported_module, task, None):
                    assert set(inspect.signature(function).parameters) == {"seconds", *workload.as_json()}
    except ModuleNotFoundError as missing:
        if missing.name not in ("onnxruntime", "torch", "tensorflow"):  # which only `make bench` installs
            raise
print(imported)
"""


def test_they_can_be_imported():
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", _IMPORT_ALL], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 25


@pytest.mark.parametrize("module", [limit, texts, workers])
def test_the_examples_are_right(module):
    failed, attempted = doctest.testmod(module)
    assert attempted
    assert not failed


def test_the_best_peer_is_not_charloom_and_works():
    results = {
        "charloom": [{"chars_per_second": 90}, {"chars_per_second": 60}, {"chars_per_second": 20}],
        "charloom, float32": [{"chars_per_second": 80}] * 3,
        "one": [{"chars_per_second": 10}, {"chars_per_second": 20}, {"chars_per_second": 40}],
        "other": [{"chars_per_second": 5}, {"chars_per_second": 15}, {"chars_per_second": 90}],
        "broken": [{workers.DOES_NOT_WORK: "no compiler"}] * 3,
    }
    row = ("60", "80", "20", "15", "does not work", "one", "3.00")
    assert workers.speeds(results) == row
    assert workers.reasons({"a workload": results}) == " broken does not work (no compiler)."
