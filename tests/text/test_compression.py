import gzip
import lzma

import pytest
import zstandard

from charloom.errors import SourceError
from charloom.settings import TextSettings
from charloom.text import find_sources, read_corpus

TEXT = "Töne und mehr\n" * 50
COMPRESS = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.ZstdCompressor().compress}

every_suffix = pytest.mark.parametrize("suffix", COMPRESS)


@every_suffix
@pytest.mark.parametrize("times", [1, 2])  # once, and two concatenated files
def test_a_compressed_file_is_read_as_its_text(tmp_path, suffix, times):
    (tmp_path / "book.txt").write_text(TEXT * times)
    (tmp_path / f"book.txt{suffix}").write_bytes(COMPRESS[suffix](TEXT.encode()) * times)
    plain, packed = (read_corpus([tmp_path / f"book.txt{end}"], TextSettings()) for end in ("", suffix))
    assert packed.documents == plain.documents == (TEXT * times,)
    assert packed.sha256 == plain.sha256
    assert packed.name == f"book.txt{suffix}"
    assert read_corpus([tmp_path], TextSettings()).documents == (TEXT * times,) * 2


@every_suffix
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: b"no" + data, lambda data: data[:40] + b"!" + data[41:]]
)
def test_a_damaged_compressed_file_is_refused(tmp_path, suffix, damage):
    path = tmp_path / f"book.txt{suffix}"
    path.write_bytes(damage(COMPRESS[suffix](TEXT.encode())))
    with pytest.raises(SourceError, match=rf"book\.txt\{suffix} is not a valid \{suffix} file, or it is damaged"):
        read_corpus([path], TextSettings())


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text(TEXT)
    found = find_sources([path], TextSettings())
    with open(path, "a") as file:
        file.write("more\n")
    with pytest.raises(SourceError, match=r"log\.txt changed while it was read"):
        read_corpus(found, TextSettings())


def test_xz_streams_may_have_zeros_between_and_after_them(tmp_path):
    packed = lzma.compress(TEXT.encode())
    (tmp_path / "book.txt.xz").write_bytes(packed + bytes(8) + packed + bytes(4))
    assert read_corpus([tmp_path / "book.txt.xz"], TextSettings()).documents == (TEXT * 2,)
    (tmp_path / "book.txt.xz").write_bytes(packed + b"more")
    with pytest.raises(SourceError, match="damaged"):
        read_corpus([tmp_path / "book.txt.xz"], TextSettings())
