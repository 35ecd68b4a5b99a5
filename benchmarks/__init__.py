"""Benchmarks: figures that the documents quote, each printed by the command beside it."""
