"""Texts and their vocabularies: what a source holds, and the integers that stand for it."""

from charloom.text.catalog import CATALOG, CatalogEntry, local_copy, read_catalog_bytes, unknown_name
from charloom.text.compression import uncompressed_name
from charloom.text.corpus import Corpus, normalize, read_catalog_corpus, read_corpus, read_standard_input
from charloom.text.records import split_records
from charloom.text.vocabulary import IncrementalDecoder, Vocabulary, describe_characters

__all__ = [
    "CATALOG",
    "CatalogEntry",
    "Corpus",
    "IncrementalDecoder",
    "Vocabulary",
    "describe_characters",
    "local_copy",
    "normalize",
    "read_catalog_bytes",
    "read_catalog_corpus",
    "read_corpus",
    "read_standard_input",
    "split_records",
    "uncompressed_name",
    "unknown_name",
]
