"""Inference: scoring and generating with a network whose weights stay as they are."""

from charloom.inference.costs import Cost, scored_pieces, settings_for
from charloom.inference.generation import NativeStream, Stream, read_on, read_prompt, write
from charloom.inference.line_scores import LineScore, score_lines, score_parts
from charloom.inference.live import LiveTexts
from charloom.inference.prediction import Next, TextCarry, logits_of, prediction, state_vector
from charloom.inference.reading import PEAK, Guesses, Score, Scorer
from charloom.inference.scoring import MeanScore, score_blocks
from charloom.inference.unit_outputs import unit_outputs
from charloom.inference.writing import StopReason, Unfolding, Writing, lanes_of

__all__ = [
    "PEAK",
    "Cost",
    "Guesses",
    "LineScore",
    "LiveTexts",
    "MeanScore",
    "NativeStream",
    "Next",
    "Score",
    "Scorer",
    "StopReason",
    "Stream",
    "TextCarry",
    "Unfolding",
    "Writing",
    "lanes_of",
    "logits_of",
    "prediction",
    "read_on",
    "read_prompt",
    "score_blocks",
    "score_lines",
    "score_parts",
    "scored_pieces",
    "settings_for",
    "state_vector",
    "unit_outputs",
    "write",
]
