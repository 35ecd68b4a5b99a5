"""`python -m benchmarks.kernels [FOLDER...]`: the speed of the native kernels without XLA, next to the machine's peak.

A folder holds the sources of another version: src/charloom/kernels/cpp of a checkout. All versions run in turn.
"""

import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.limit import FLOAT32, measured_peaks
from charloom.kernels.build import compile_command
from charloom.machine import available_cores

ROUNDS, SECONDS = 9, 0.4
# hidden, rows, sequence, features. Without features the inputs are rows of a table, as in a first layer.
SHAPES = ((512, 64, 8, 0), (512, 32, 64, 0), (512, 16, 64, 0), (512, 50, 50, 512), (128, 50, 50, 0), (128, 50, 50, 128))
_HERE = Path(__file__).parent
_OURS = _HERE.parent / "src" / "charloom" / "kernels" / "cpp"


def main() -> None:
    """Prints a table of medians, forward / backward in GFLOP/s, with a column per version."""
    folders = [_OURS, *map(Path, sys.argv[1:])]
    programs = [_program(folder, number) for number, folder in enumerate(folders)]
    print(f"| LSTM, batch size × sequence length | peak | {' | '.join(map(str, ['this version', *folders[1:]]))} |")
    print(f"| --- | --- {'| --- ' * len(folders)}|")
    for hidden, batch_size, sequence, features in SHAPES:
        shape = [str(number) for number in (hidden, batch_size, sequence, features, available_cores(), SECONDS)]
        peaks: list[float] = []
        speeds: list[list[tuple[float, float]]] = [[] for _ in programs]
        for _ in range(ROUNDS):
            peaks.append(measured_peaks()[FLOAT32])
            for program, of in zip(programs, speeds, strict=True):
                done = subprocess.run([program, *shape], capture_output=True, text=True, check=True)
                forward, backward = map(float, done.stdout.split())
                of.append((forward, backward))
        cells = [" / ".join(f"{statistics.median(way):.0f}" for way in zip(*of, strict=True)) for of in speeds]
        name = f"{hidden}{f' on {features} features' if features else ''}, {batch_size} × {sequence}"
        print(f"| {name} | {statistics.median(peaks):.0f} | {' | '.join(cells)} |", flush=True)


def _program(sources: Path, number: int) -> Path:
    program = _HERE.parent / "build" / "bench" / f"kernels-{number}"
    program.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([*compile_command(), f"-I{sources}", str(_HERE / "kernels.cc"), "-o", str(program)], check=True)
    return program


if __name__ == "__main__":
    main()
