"""Damaged and hostile files: models, run folders, checkpoints, caches and results, each read by commands."""

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

from tests.fuzz.runner import Tally, Worker
from tests.fuzz.values import json_bytes, mutated_bytes, mutated_json, mutated_tensor_file

_TRAIN = ("--hidden", "8", "--embedding", "4", "--batch-size", "2", "--sequence-length", "8", "--steps", "3")


def fuzz_models(samples: Path, scratch: Path, rng: random.Random, until: float, max_cases: int) -> Tally:
    """Reads mutated model files with every command that reads one."""
    tally, worker = Tally("model files"), Worker()
    originals = {name: (samples / f"{name}.safetensors").read_bytes() for name in ("chars", "bytes", "records")}
    shutil.copy(samples / "book.txt", scratch / "book.txt")
    shutil.copy(samples / "chars.safetensors", scratch / "good.safetensors")
    ways = [
        ["show", "m.safetensors", "--json"],
        ["show", "m.safetensors", "good.safetensors"],
        ["generate", "m.safetensors", "--length", "20", "--seed", "1", "--prompt", "the"],
        ["generate", "m.safetensors", "--length", "20", "--seed", "1", "--count", "3", "--json"],
        ["score", "m.safetensors", "book.txt"],
        ["score", "m.safetensors", "book.txt", "--per", "line", "--top", "2", "--json"],
        ["classify", "m.safetensors", "good.safetensors", "--text", "book.txt"],
    ]
    report = ["report", "m.safetensors", "book.txt", "--out", "page.html"]
    while tally.has_next(until, max_cases):
        number = tally.cases
        name = rng.choice(list(originals))
        (scratch / "m.safetensors").write_bytes(mutated_tensor_file(originals[name], rng))
        arguments = report if number % 40 == 0 else rng.choice(ways)
        tally.judge(f"attempt {number}, a mutated model of {name}", arguments, worker.run(arguments, scratch))
    worker.close()
    return tally


def fuzz_runs(samples: Path, scratch: Path, rng: random.Random, until: float, max_cases: int) -> Tally:
    """Resumes runs whose folders have one mutated file."""
    tally, worker, resume = Tally("run folders"), Worker(), ["train", "--resume", "run"]
    shutil.copy(samples / "book.txt", scratch / "book.txt")
    while tally.has_next(until, max_cases):
        run = scratch / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(samples / "run", run)
        _rebased(run / "run.json", samples, scratch)
        file = rng.choice([path for path in run.iterdir() if not path.name.startswith(".")])
        if file.suffix == ".safetensors":
            data = mutated_tensor_file(file.read_bytes(), rng)
        elif rng.random() < 0.2:
            data = mutated_bytes(file.read_bytes(), rng)
        elif file.suffix == ".jsonl":
            lines = file.read_text().splitlines() or ["{}"]
            at = rng.randrange(len(lines))
            lines[at] = json_bytes(mutated_json(json.loads(lines[at]), rng)).decode()
            data = "\n".join(lines).encode()
        else:
            data = json_bytes(mutated_json(json.loads(file.read_text()), rng))
        file.write_bytes(data)
        tally.judge(f"a mutated {file.name}: {data[:1500]!r}", resume, worker.run(resume, scratch))
    worker.close()
    return tally


def _rebased(run_file: Path, samples: Path, scratch: Path) -> None:
    """Changes the paths in a copied run folder to those of the copy."""
    run_file.write_text(run_file.read_text().replace(str(samples), str(scratch)))


def fuzz_caches(samples: Path, scratch: Path, rng: random.Random, until: float, max_cases: int) -> Tally:
    """Trains from damaged encoded texts with unchanged modification times."""
    tally, worker = Tally("encoded texts"), Worker()
    shutil.copy2(samples / "book.txt", scratch / "book.txt")
    train = ["train", "book.txt", "--cache", "cache", *_TRAIN, "--out", "m.safetensors"]
    worker.run(train, scratch)
    (entry,) = (path for path in (scratch / "cache").iterdir() if path.is_dir())
    whole = {path.name: path.read_bytes() for path in entry.iterdir() if path.is_file()}
    while tally.has_next(until, max_cases):
        for name, data in whole.items():
            (entry / name).write_bytes(data)
        name = rng.choice(["tokens.bin", "text.json"])
        times = (entry / name).stat()
        if name == "text.json" and rng.random() < 0.7:
            body = json_bytes(mutated_json(json.loads(whole[name].partition(b"\n")[2]), rng))
            data = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        else:
            data = mutated_bytes(whole[name], rng)
        (entry / name).write_bytes(data)
        os.utime(entry / name, ns=(times.st_atime_ns, times.st_mtime_ns))
        tally.judge(f"a mutated {name}: {data[:1500]!r}", train, worker.run(train, scratch))
    worker.close()
    return tally


def fuzz_results(samples: Path, scratch: Path, rng: random.Random, until: float, max_cases: int) -> Tally:
    """Continues a reproduction whose results are damaged."""
    tally, worker = Tally("results of studies"), Worker()
    arguments = ["reproduce", "alphabet/one_to_one", "--quick", "--out", "done"]
    first = worker.run(arguments, scratch, seconds=120)
    if first.status != 0:
        tally.fault(f"{' '.join(arguments)}\n{first.as_text()}")
        return tally
    whole = (scratch / "done" / "results.json").read_bytes()
    while tally.has_next(until, max_cases):
        damaged = rng.random() < 0.3
        data = mutated_bytes(whole, rng) if damaged else json_bytes(mutated_json(json.loads(whole), rng))
        (scratch / "done" / "results.json").write_bytes(data)
        outcome = worker.run(arguments, scratch, seconds=60)
        tally.judge(f"mutated results: {data[:1500]!r}", arguments, outcome)
    worker.close()
    return tally
