"""Inference: scoring and generating with a network whose weights stay as they are."""

from charloom.inference.generation import NativeStream, Stream, read_prompt, write
from charloom.inference.scoring import Score, score_blocks

__all__ = ["NativeStream", "Score", "Stream", "read_prompt", "score_blocks", "write"]
