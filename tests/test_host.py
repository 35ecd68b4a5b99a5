"""charloom as a library: it does not change the program that imports it, and works with any of its JAX settings.

Each program runs in a separate process, without the setup of the tests.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

TEXT = "the cat sat on the mat and the dog ran\n" * 60

HOST = """
import json, logging, os, resource, signal, sys, warnings

def settings():
    import jax
    numbers = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in sorted(logging.root.manager.loggerDict))]
    return {
        "jax": {name: repr(value) for name, value in sorted(jax.config.values.items())},
        "environment": dict(os.environ),
        "warnings": [repr(filter) for filter in warnings.filters],
        "levels": {logger.name: logger.level for logger in loggers if logger.level or logger.handlers},
        "switch interval": sys.getswitchinterval(),
        "umask": [line for line in open("/proc/self/status") if line.startswith("Umask")],
        "cores": sorted(os.sched_getaffinity(0)),
        "signals": {int(number): repr(signal.getsignal(number)) for number in numbers},
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }

# Changes by JAX and other libraries do not count.
import equinox, filelock, jax, optax, platformdirs
jax.numpy.zeros(1)
before = settings()
import charloom, charloom.model, charloom.report, charloom.runs, charloom.server, charloom.studies
imported = settings()
model = charloom.train("text.txt", hidden=8, batch_size=2, sequence_length=8, steps=3, out="model.safetensors")
loaded = charloom.load("model.safetensors")
loaded.generate("the", 5), loaded.score("the cat"), loaded.next("t"), loaded.embed("t")
used = settings()
found = {what: [was, then] for what, was in before.items() for then in (imported[what], used[what]) if then != was}
print(json.dumps(found))
"""


def host(folder, code, *arguments, **environment):
    """Returns the JSON that a program prints. Its folder contains `text.txt`."""
    (folder / "text.txt").write_text(TEXT)
    ours = ("JAX_", "XLA_", "TF_", "NPROC")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    # All of these processes share one compilation cache.
    kept = {"JAX_COMPILATION_CACHE_DIR": str(Path(os.environ["XDG_CACHE_HOME"]) / "hosts")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**plain, **kept, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **environment},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="reads Linux's /proc")
def test_the_host_program_is_not_changed(tmp_path):
    assert host(tmp_path, HOST) == {}


NUMBERS = """
import hashlib, json, sys
import jax
if sys.argv[1:] == ["before"]:
    jax.config.update("jax_enable_x64", True)
import charloom
from charloom.data import TokenStream
from charloom.runs import dynamic_score

def digest(*arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

def saved(model):
    model.save("saved.safetensors")
    return hashlib.sha256(open("saved.safetensors", "rb").read()).hexdigest()


small = {"hidden": 16, "batch_size": 2, "sequence_length": 8, "seed": 2**40 + 1}
found = {}
model = charloom.train("text.txt", steps=30, dropout=0.2, weight_dropout=0.3, weight_decay=0.01, layers=2, **small)
found["train"] = saved(model)
found["records"] = saved(charloom.train("text.txt", records=True, cell="gru", steps=4, **small))
charloom.train("text.txt", steps=30, run="run", out="out.safetensors", **small)
found["resume"] = saved(charloom.resume("run"))
loaded = charloom.load("out.safetensors")
if sys.argv[1:] == ["after"]:
    jax.config.update("jax_enable_x64", True)
found["generate"] = loaded.generate("the", 40, seed=3), loaded.generate("the", 40, top_k=4, top_p=0.7, window=3)
many = loaded.score_many(["a", "t"] * 40)
found["score"] = digest(loaded.score("the cat", top_predictions=2).nats, *(score.nats for score in many))
found["next"] = digest(loaded.next("h", loaded.next("t").carry).log_probs, loaded.embed("cat"))
stream = TokenStream.from_documents([loaded.vocabulary.encode("the cat " * 30)])
found["dynamic"] = dynamic_score(loaded, stream).nats_per_char
print(json.dumps(found))
"""


def test_results_are_the_same_if_the_host_uses_64_bits(tmp_path):
    wanted = host(tmp_path, NUMBERS)
    for arguments, environment in (([], {"JAX_ENABLE_X64": "1"}), (["before"], {}), (["after"], {})):
        folder = tmp_path / "_".join([*arguments, *environment])
        folder.mkdir()
        assert host(folder, NUMBERS, *arguments, **environment) == wanted


def test_the_reference_kernels_give_the_same_results_in_64_bits(tmp_path):
    (tmp_path / "wide").mkdir()
    wanted = host(tmp_path, NUMBERS, CHARLOOM_KERNELS="reference")
    assert host(tmp_path / "wide", NUMBERS, CHARLOOM_KERNELS="reference", JAX_ENABLE_X64="1") == wanted


FORKED = """
import json, multiprocessing, os, sys, threading, warnings
warnings.simplefilter("ignore")
import charloom
from charloom.settings import SamplingSettings

def attempt(call):
    try:
        return call()
    except charloom.CharloomError as error:
        return f"{type(error).__name__}: {error}"

def child(send):
    send.send(attempt(lambda: prompted.model.generate("the", 20)))
    send.send(attempt(lambda: prompted.model.next("h", found.carry).top(1)[0][0]))
    for call in (
        lambda: charloom.load("model.safetensors"),
        lambda: prompted.model.score("the"),
        lambda: charloom.train("text.txt", steps=1),
        lambda: other.generate("the"),
    ):
        send.send(attempt(call))

charloom.train("text.txt", hidden=64, batch_size=2, sequence_length=8, steps=2, out="model.safetensors")
prompted, other = charloom.load("model.safetensors").prompted("the"), charloom.load("model.safetensors")
found = prompted.model.next("t")
wanted = prompted.model.generate("the", 20), prompted.model.next("h", found.carry).top(1)[0][0]
receive, send = multiprocessing.Pipe()
process = multiprocessing.get_context("fork").Process(target=child, args=[send])
process.start()
answers = [receive.recv() if receive.poll(60) else "no answer" for _ in range(6)]
process.kill()
print(json.dumps([wanted, answers]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.usefixtures("native_library")
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="another device may not be shared")
def test_a_forked_process_generates_with_native_kernels_and_refuses_the_rest(tmp_path):
    wanted, answers = host(tmp_path, FORKED)
    assert answers[:2] == wanted
    for answer in answers[2:]:
        assert answer.startswith("ForkedError: this process was forked from one in which charloom had already used JAX")
        assert "'spawn'" in answer
