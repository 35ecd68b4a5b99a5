"""The measured programs, one per file. `python -m benchmarks.peers.NAME TASK JSON` prints a line of JSON."""
