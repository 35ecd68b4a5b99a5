"""Benchmarks: figures that the documents quote, each printed by the command beside it."""

from charloom.machine import own_process

own_process()
