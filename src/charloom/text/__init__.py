"""Texts and their vocabularies: what a source holds, and the integers that stand for it."""

from charloom.text.compression import uncompressed_name
from charloom.text.corpora import CATALOG, CatalogEntry, local_copy, read_catalog_bytes, unknown_name
from charloom.text.corpus import Corpus, read_catalog_corpus, read_corpus
from charloom.text.decoding import normalize, text_pieces
from charloom.text.lines import Line, arriving_lines, count_lines
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
    "CATALOG",
    "CatalogEntry",
    "CharacterCounts",
    "Corpus",
    "IncrementalDecoder",
    "Line",
    "Sources",
    "Vocabulary",
    "arriving_lines",
    "changed",
    "count_lines",
    "describe_characters",
    "find_sources",
    "is_pipe",
    "local_copy",
    "normalize",
    "one_record",
    "pipe_chunks",
    "read_catalog_bytes",
    "read_catalog_corpus",
    "read_corpus",
    "read_standard_input",
    "record_end_in",
    "split_records",
    "stamp_of",
    "standard_input_chunks",
    "text_pieces",
    "uncompressed_name",
    "unknown_name",
]
