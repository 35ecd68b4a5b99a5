"""Inference: scoring and generating with a network whose weights stay as they are."""

from charloom.inference.generation import Stream, read_prompt, write
from charloom.inference.scoring import mean_nats

__all__ = ["Stream", "mean_nats", "read_prompt", "write"]
