"""The speed at which many lines are scored, next to its peers. The weights are untrained, which costs the same."""

import json

from benchmarks.workers import Measured, Row, Table, goal, in_turn, median, reasons, speeds
from benchmarks.workloads import SCORING

SECONDS = 2.0
PEERS = {
    "charloom": ["benchmarks.peers.charloom"],
    "PyTorch": ["benchmarks.peers.pytorch"],
    "PyTorch, bfloat16": ["PRECISION=bfloat16", "benchmarks.peers.pytorch"],
    "PyTorch, int8": ["PRECISION=int8", "benchmarks.peers.pytorch"],
    "ONNX Runtime": ["benchmarks.peers.onnx"],
    "ONNX Runtime, int8": ["PRECISION=int8", "benchmarks.peers.onnx"],
}


def run(rounds: int) -> Measured:
    """Returns the figures of all rounds, a table and a goal."""
    task = ["score", json.dumps({"seconds": SECONDS, **SCORING.as_json()})]
    of = in_turn({peer: arguments + task for peer, arguments in PEERS.items()}, rounds)
    results = {SCORING.name: of}
    rows: list[Row] = [("network", *PEERS, "best peer", "speedup over it"), (SCORING.name, *speeds(of))]
    note = "Characters per second of many lines. The peers get them as token ids, sorted by length."
    name = f"{SCORING.name}, scoring, characters per second"
    met = goal(name, median(of["charloom"], "chars_per_second"), SCORING.goals, ",.0f")
    return Measured({"scoring": results}, [Table("Scoring", rows, note + reasons(results))], [], [met])
