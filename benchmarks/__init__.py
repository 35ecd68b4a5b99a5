"""Benchmarks. They print the figures that the documents quote, next to the command."""

from charloom.machine import own_process

own_process()
