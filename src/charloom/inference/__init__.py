"""Inference: scoring and generating with a network whose weights do not change."""

from charloom.inference.costs import Cost, scored_pieces, settings_for
from charloom.inference.decoding_batch import DecodingBatch, generate_tokens
from charloom.inference.generation import DecoderState, NativeDecoderState, read_prompt, read_tokens
from charloom.inference.line_scores import LineScore, score_lines, score_parts
from charloom.inference.parallel_texts import ParallelTexts
from charloom.inference.prediction import Next, TextCarry, logits_of, prediction, state_vector
from charloom.inference.scorer import Scorer
from charloom.inference.scores import PEAK, Score, TopPredictions
from charloom.inference.scoring import MeanScore, score_blocks
from charloom.inference.text_batch import StepTimes, TextBatch
from charloom.inference.text_stream import FinishReason, StopDetector, TextStream
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
    "ParallelTexts",
    "Score",
    "Scorer",
    "StepTimes",
    "StopDetector",
    "TextBatch",
    "TextCarry",
    "TextStream",
    "TopPredictions",
    "generate_tokens",
    "logits_of",
    "prediction",
    "read_prompt",
    "read_tokens",
    "score_blocks",
    "score_lines",
    "score_parts",
    "scored_pieces",
    "settings_for",
    "state_vector",
    "unit_outputs",
]
