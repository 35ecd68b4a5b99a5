"""Texts and vocabularies: reading sources, and mapping their characters to token ids."""

from charloom.text.compression import uncompressed_name
from charloom.text.corpora import CORPORA, CorpusEntry, local_copy, read_named_corpus_bytes, unknown_corpus_message
from charloom.text.corpus import Corpus, read_corpus, read_named_corpus
from charloom.text.decoding import normalize, text_pieces
from charloom.text.lines import Line, count_lines, iter_lines
from charloom.text.records import one_record, record_end_in, split_records
from charloom.text.sources import (
    Sources,
    changed,
    find_sources,
    is_pipe,
    pipe_chunks,
    read_standard_input,
    stamp_of,
    standard_input_chunks,
)
from charloom.text.vocabulary import CharacterCounts, IncrementalDecoder, Vocabulary, describe_characters

__all__ = [
    "CORPORA",
    "CharacterCounts",
    "Corpus",
    "CorpusEntry",
    "IncrementalDecoder",
    "Line",
    "Sources",
    "Vocabulary",
    "changed",
    "count_lines",
    "describe_characters",
    "find_sources",
    "is_pipe",
    "iter_lines",
    "local_copy",
    "normalize",
    "one_record",
    "pipe_chunks",
    "read_corpus",
    "read_named_corpus",
    "read_named_corpus_bytes",
    "read_standard_input",
    "record_end_in",
    "split_records",
    "stamp_of",
    "standard_input_chunks",
    "text_pieces",
    "uncompressed_name",
    "unknown_corpus_message",
]
