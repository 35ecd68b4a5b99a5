"""Inference: scoring and generating with a network whose weights stay as they are."""

from charloom.inference.costs import Cost, scored_pieces, settings_for
from charloom.inference.decoding_batch import DecodingBatch
from charloom.inference.generation import DecoderState, NativeDecoderState, read_on, read_prompt, write
from charloom.inference.line_scores import LineScore, score_lines, score_parts
from charloom.inference.prediction import Next, TextCarry, logits_of, prediction, state_vector
from charloom.inference.reading import PEAK, Score, Scorer, TopPredictions
from charloom.inference.scoring import MeanScore, score_blocks
from charloom.inference.text_stream import FinishReason, StopDetector, TextStream, per_stream
from charloom.inference.unit_outputs import unit_outputs

__all__ = [
    "PEAK",
    "Cost",
    "DecoderState",
    "DecodingBatch",
    "FinishReason",
    "LineScore",
    "MeanScore",
    "NativeDecoderState",
    "Next",
    "Score",
    "Scorer",
    "StopDetector",
    "TextCarry",
    "TextStream",
    "TopPredictions",
    "logits_of",
    "per_stream",
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
