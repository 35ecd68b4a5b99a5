"""Inference: scoring and generating with a network whose weights stay as they are."""

from charloom.inference.generation import NativeStream, Stream, read_prompt, write
from charloom.inference.scoring import Score, score_blocks
from charloom.inference.writing import Writing, lanes_of

__all__ = ["NativeStream", "Score", "Stream", "Writing", "lanes_of", "read_prompt", "score_blocks", "write"]
