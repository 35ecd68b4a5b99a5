"""Inference: scoring and generating with a network whose weights stay as they are."""

from charloom.inference.generation import Stream, read_prompt, write
from charloom.inference.scoring import Score, score_blocks

__all__ = ["Score", "Stream", "read_prompt", "score_blocks", "write"]
