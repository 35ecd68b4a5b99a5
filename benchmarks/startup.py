"""How long a user waits for a command, and how large an installation is."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.workers import Measured, Table


def run(rounds: int) -> Measured:
    """Returns the figures and a table."""
    with tempfile.TemporaryDirectory() as folder:
        help_seconds = [_seconds(["--help"], until_first_byte=False) for _ in range(rounds)]
        model = _saved_model(Path(folder))
        generating = ["generate", str(model), "--prompt", "the", "--seed", "1"]
        cache = {"XDG_CACHE_HOME": folder}
        first = _seconds(generating, until_first_byte=True, **cache)
        second = [_seconds(generating, until_first_byte=True, **cache) for _ in range(rounds)]
        megabytes = _installed_megabytes(Path(folder) / "venv")
    figures = {
        "help_seconds": help_seconds,
        "first_character_first_run_seconds": first,
        "first_character_seconds": second,
        "installed_megabytes": megabytes,
    }
    rows = [
        ("", "measured", "goal"),
        ("charloom --help", f"{statistics.median(help_seconds):.2f} s", "0.3 s"),
        ("first generated character, LSTM 512, first run", f"{first:.2f} s", ""),
        ("first generated character, LSTM 512, second run", f"{statistics.median(second):.2f} s", "3 s"),
        ("installed size without development dependencies", f"{megabytes:,.0f} MB", "850 MB"),
    ]
    return Measured({"startup": figures}, [Table("Commands and installation", rows)], [], [])


def _seconds(arguments: list[str], until_first_byte: bool, **environment: str) -> float:
    begin = time.perf_counter()
    charloom = Path(sys.executable).with_name("charloom")
    with subprocess.Popen(
        [charloom, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    ) as process:
        assert process.stdout is not None
        if until_first_byte:
            while len(os.read(process.stdout.fileno(), 1 << 16)) <= len("the"):  # the prompt is not new
                pass
            seconds = time.perf_counter() - begin
            process.stdout.read()
            return seconds
        process.stdout.read()
    return time.perf_counter() - begin


def _saved_model(folder: Path) -> Path:
    import numpy as np

    from charloom import TextModel, Vocabulary
    from charloom.models import Network
    from charloom.settings import NetworkSettings

    vocabulary = Vocabulary.of_texts([" abcdefghijklmnopqrstuvwxyz,.;:!?'\n"])
    settings = NetworkSettings(hidden=512, embedding=42)
    network = Network.init(settings, vocabulary.size, vocabulary.start_id, np.random.default_rng(0))
    TextModel(network, vocabulary, settings).save(folder / "model.safetensors")
    return folder / "model.safetensors"


def _installed_megabytes(environment: Path) -> float:
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    constraints = Path("constraints") / f"python{sys.version_info[0]}.{sys.version_info[1]}.txt"
    pinned = ["--constraint", str(constraints)] if constraints.exists() else []
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", *pinned, "."], check=True)
    # Like du: the blocks on the disk, each file once.
    files = {(s.st_dev, s.st_ino): s.st_blocks * 512 for s in (p.lstat() for p in environment.rglob("*"))}
    return sum(files.values()) / 1e6
