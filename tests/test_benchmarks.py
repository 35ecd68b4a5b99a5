"""Benchmarks are run by hand. That they can be imported is checked here, so that a renamed thing is noticed."""

import subprocess
import sys
from pathlib import Path

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
