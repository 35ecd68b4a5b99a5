"""The programs that are measured, one file each: `python -m benchmarks.peers.NAME TASK JSON` prints a JSON line."""
