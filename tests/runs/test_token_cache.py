"""Texts that are encoded into a folder: the same as in memory, only once, and with little memory."""

import gzip
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zstandard

import charloom as cl
from charloom.artifacts import lock_folder
from charloom.errors import OutputError, SettingError, SourceError
from charloom.runs import RunSettings, run_corpus, run_training, token_cache
from charloom.runs.dataset_split import split_corpus
from charloom.runs.token_cache import encoded_corpus
from charloom.settings import NetworkSettings, TextSettings, TrainingSettings
from charloom.text import compression, find_sources, read_corpus
from charloom.training import Encoding, Notice, follow

TEXT = "Ein Öl für Σισυφοσ’ “Töne”,\r\n日本語 und 😀 ΑΣ\rΟΔΟΣ ΑΣ. plain words only\n" * 40
QUICK = {"hidden": 16, "embedding": 4, "batch_size": 4, "sequence_length": 16}


def encoded(paths, cache, settings=None, standard_input=None):
    """Returns the encoded corpus, and the events of encoding it."""
    settings, events = settings or TextSettings(), []
    sources = find_sources(paths, settings, standard_input)
    return follow(encoded_corpus(sources, settings, cache), events.append), events


def entries(cache):
    return sorted(path for path in cache.iterdir() if (path / "text.json").exists())


@pytest.mark.parametrize(
    "settings",
    [
        TextSettings(),
        TextSettings(lowercase=True),
        TextSettings(min_count=100),
        TextSettings(units="bytes"),
        TextSettings(encoding="utf-16"),
        TextSettings(encoding="gb18030", lowercase=True),
    ],
)
@pytest.mark.parametrize("chunk", [5, 1 << 17])
def test_the_encoded_text_equals_the_text_in_memory(tmp_path, monkeypatch, settings, chunk):
    monkeypatch.setattr(compression, "_CHUNK", chunk)
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_bytes(TEXT.encode(settings.encoding))
    (folder / "b.txt").write_bytes(b"")
    (folder / "c.txt.gz").write_bytes(gzip.compress(TEXT[7:].encode(settings.encoding)))
    if "16" not in settings.encoding:  # in UTF-16 zeros are text
        (folder / "d.bin").write_bytes(b"\0\0\1")
    training = TrainingSettings(validation=50)
    corpus = read_corpus([folder], settings)
    wanted = split_corpus(corpus, settings, training)
    got, _ = encoded([folder], tmp_path / "cache", settings)
    assert got.metadata == corpus.metadata
    split = got.split(training)
    assert split.vocabulary == wanted.vocabulary
    assert split.notices == wanted.notices
    for mine, theirs in ((split.train, wanted.train), (split.validation, wanted.validation)):
        assert mine.token_ids.dtype == theirs.token_ids.dtype
        np.testing.assert_array_equal(mine.token_ids, theirs.token_ids)
        np.testing.assert_array_equal(mine.starts, theirs.starts)


def test_a_text_is_encoded_once_and_again_after_a_change(tmp_path):
    book, cache = tmp_path / "book.txt", tmp_path / "cache"
    book.write_text(TEXT)
    first, events = encoded([book], cache)
    wanted = np.array(first.stream.token_ids)
    assert isinstance(events[0], Encoding)
    (entry,) = entries(cache)
    assert entry.stat().st_mode & 0o077 == 0  # other users cannot read the text
    again, events = encoded([book], cache)
    assert [type(event) for event in events] == [Notice]
    assert "using the encoded text in" in events[0].text
    np.testing.assert_array_equal(again.stream.token_ids, wanted)

    (entry / "tokens.bin").write_bytes(b"cut off")
    mended, events = encoded([book], cache)
    assert isinstance(events[0], Notice)
    assert "is damaged; encoding it again" in events[0].text
    assert isinstance(events[1], Encoding)
    np.testing.assert_array_equal(mended.stream.token_ids, wanted)

    (entry / "text.json").write_text('{"vocabulary": 7}')
    mended, _ = encoded([book], cache)
    np.testing.assert_array_equal(mended.stream.token_ids, wanted)

    (tmp_path / "other.txt").write_text("another text")
    encoded([tmp_path / "other.txt"], cache)
    book.write_text(TEXT + "more")
    longer, _ = encoded([book], cache)
    assert len(longer.stream) == len(wanted) + 4
    assert not entry.exists()  # because its file has changed
    assert len(entries(cache)) == 2


@pytest.mark.parametrize("damage", [b"\xff", b" "])
def test_changed_token_ids_with_the_same_times_are_encoded_again(tmp_path, damage):
    book, cache = tmp_path / "book.txt", tmp_path / "cache"
    book.write_text("plain words only\n" * 100)
    first, _ = encoded([book], cache)
    wanted = np.array(first.stream.token_ids)
    (tokens,) = cache.glob("*/tokens.bin")
    found = tokens.stat()
    with tokens.open("r+b") as file:
        file.seek(700)
        file.write(bytes([wanted[700] ^ 1]) if damage == b" " else damage)  # another token id, or an invalid one
    os.utime(tokens, ns=(found.st_atime_ns, found.st_mtime_ns))
    mended, events = encoded([book], cache)
    assert any(isinstance(event, Encoding) for event in events)
    np.testing.assert_array_equal(mended.stream.token_ids, wanted)


def test_a_text_from_a_pipe_is_encoded_once_too(tmp_path):
    first, _ = encoded(["-"], tmp_path, standard_input=b"from a pipe")
    again, events = encoded(["-"], tmp_path, standard_input=b"from a pipe")
    assert [type(event) for event in events] == [Notice]
    np.testing.assert_array_equal(again.stream.token_ids, first.stream.token_ids)
    other, _ = encoded(["-"], tmp_path, standard_input=b"another pipe")
    assert other.vocabulary.decode(other.stream.token_ids) == "another pipe"


@pytest.mark.parametrize("digest", [b"0" * 64, b"f" * 64, b"", b"\xff"])
def test_a_text_file_with_a_wrong_digest_is_not_read(tmp_path, digest):
    book, cache = tmp_path / "book.txt", tmp_path / "cache"
    book.write_text(TEXT)
    encoded([book], cache)
    (path,) = cache.glob("*/text.json")
    path.write_bytes(digest + path.read_bytes()[64:])
    _, events = encoded([book], cache)
    assert any(isinstance(event, Encoding) for event in events)


def test_events_and_a_notice_report_progress_and_speed(tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "_CHUNK", 100)
    monkeypatch.setattr(token_cache, "_BYTES_BETWEEN_EVENTS", 3_000)
    now = iter([10.0, 10.5])
    monkeypatch.setattr(token_cache, "time", SimpleNamespace(perf_counter=lambda: next(now), time=time.time))
    (tmp_path / "book.txt").write_bytes(b"ab" * 5_000)
    _, events = encoded([tmp_path / "book.txt"], tmp_path / "cache")
    *readings, notice = events
    assert [event.read for event in readings] == [100, 3_100, 6_100, 9_100, 12_100, 15_100, 18_100]
    assert {event.of for event in readings} == {20_000}
    assert "encoded at 0 MB per second" in notice.text  # 0.01 MB, read twice, in half a second

    now = iter([10.0, 10.001])
    monkeypatch.setattr(compression, "_CHUNK", 1 << 17)
    (tmp_path / "book.txt").write_bytes(b"ab" * 50_000)
    _, events = encoded([tmp_path / "book.txt"], tmp_path / "cache")
    assert "encoded at 100 MB per second" in events[-1].text


def rewrite_text(entry, **changes):
    """Writes `text.json` with other values and their digest."""
    body = json.loads((entry / "text.json").read_bytes().partition(b"\n")[2]) | changes
    data = json.dumps({name: value for name, value in body.items() if value is not ...}).encode()
    (entry / "text.json").write_bytes(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": 5},
        {"files": [[]]},
        {"files": ["book.txt"]},
        {"tokens": None},
        {"vocabulary": {"units": "chars"}},
        {"vocabulary": {"units": "chars", "characters": "abc", "record_end": None}},
        {"starts": []},
        {"starts": [0, 0]},
        {"starts": [0, 10**6]},
        {"starts": [10**30]},
        {"sha256": "ab"},
        {"notices": "text"},
        {"crc32": 1.5},
        {"crc32": ...},
        {"key": "0" * 32},
        {"more": 1},
    ],
)
def test_a_text_file_with_other_values_is_not_read(tmp_path, changes):
    book, cache = tmp_path / "book.txt", tmp_path / "cache"
    book.write_text("plain words only\n" * 10)
    first, _ = encoded([book], cache)
    wanted = np.array(first.stream.token_ids)
    (entry,) = entries(cache)
    rewrite_text(entry, **changes)
    mended, events = encoded([book], cache)
    assert any(isinstance(event, Encoding) for event in events)
    np.testing.assert_array_equal(mended.stream.token_ids, wanted)
    rewrite_text(entry)
    assert not any(isinstance(event, Encoding) for event in encoded([book], cache)[1])


def test_the_encoding_of_another_text_is_not_read(tmp_path):
    cache = tmp_path / "cache"
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"text {name}\n" * 20)
        encoded([tmp_path / name], cache)
    one, other = entries(cache)
    for file in ("tokens.bin", "text.json"):
        shutil.copy2(one / file, other / file)
    for name in ("a", "b"):
        got, _ = encoded([tmp_path / name], cache)
        assert got.vocabulary.decode(got.stream.token_ids) == f"text {name}\n" * 20


@pytest.mark.parametrize("name", ["text.json", "tokens.bin"])
def test_other_kinds_of_files_in_the_cache_are_replaced_or_refused_without_waiting(tmp_path, name):
    book, cache = tmp_path / "book.txt", tmp_path / "cache"
    book.write_text(TEXT)
    first, _ = encoded([book], cache)
    wanted = np.array(first.stream.token_ids)
    (entry,) = entries(cache)
    (entry / name).unlink()
    os.mkfifo(entry / name)
    mended, _ = encoded([book], cache)
    np.testing.assert_array_equal(mended.stream.token_ids, wanted)
    (entry / name).unlink()
    (entry / name).mkdir()
    with pytest.raises(OutputError, match=f"cannot write .*{name}"):
        encoded([book], cache)


def test_an_entry_removed_while_waiting_is_encoded_again(tmp_path):
    book, cache, settings = tmp_path / "book.txt", tmp_path / "cache", TextSettings()
    book.write_text(TEXT)
    encoded([book], cache)
    (entry,) = entries(cache)
    run = encoded_corpus(find_sources([book], settings), settings, cache)
    with lock_folder(entry):
        assert next(run).is_waiting
        shutil.rmtree(entry)
    corpus = follow(run, lambda event: None)
    assert corpus.vocabulary.decode(corpus.stream.token_ids) == TEXT.replace("\r\n", "\n").replace("\r", "\n")


def test_an_entry_removed_before_locking_is_encoded_again(tmp_path, monkeypatch):
    calls = []

    @contextmanager
    def removed_at_first(folder, *, wait=False):
        with lock_folder(folder, wait=wait):
            calls.append(wait)
            if calls.count(True) == 1 and wait:
                shutil.rmtree(folder)
            yield

    monkeypatch.setattr(token_cache, "lock_folder", removed_at_first)
    (tmp_path / "book.txt").write_text("some text")
    corpus, _ = encoded([tmp_path / "book.txt"], tmp_path / "cache")
    assert corpus.vocabulary.decode(corpus.stream.token_ids) == "some text"
    assert calls.count(True) == 2


def test_each_text_setting_has_its_own_entry(tmp_path):
    book, cache = tmp_path / "book.txt", tmp_path / "cache"
    book.write_text("Aa " * 50)
    plain, _ = encoded([book], cache)
    lower, _ = encoded([book], cache, TextSettings(lowercase=True))
    assert (plain.vocabulary.characters, lower.vocabulary.characters) == (" Aa", " a")


def test_the_entry_of_a_missing_file_is_kept(tmp_path):
    book, cache = tmp_path / "book.txt", tmp_path / "cache"
    book.write_text("on a disk that is disconnected")
    encoded([book], cache)
    book.rename(tmp_path / "away")
    (tmp_path / "other.txt").write_text("another text")
    encoded([tmp_path / "other.txt"], cache)
    (tmp_path / "away").rename(book)
    _, events = encoded([book], cache)
    assert [type(event) for event in events] == [Notice]


def test_ascii_pieces_have_the_same_token_width_as_others(tmp_path):
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    (tmp_path / "wide.txt").write_text("plain words only\n" * 20_000 + many + "and more\n" * 20_000)
    got, _ = encoded([tmp_path / "wide.txt"], tmp_path / "cache")
    assert got.stream.token_ids.dtype == np.uint16
    assert got.vocabulary.decode(got.stream.token_ids) == (tmp_path / "wide.txt").read_text()


def test_large_texts_are_encoded_by_default(tmp_path, monkeypatch):
    monkeypatch.setattr(run_corpus, "LARGE_TEXT_BYTES", 2_000)
    monkeypatch.setattr(token_cache, "default_cache", lambda: tmp_path / "cache")
    (tmp_path / "small.txt").write_text("small\n" * 300)
    (tmp_path / "large.txt").write_text("large\n" * 400)
    cl.train(tmp_path / "small.txt", steps=1, **QUICK)
    (tmp_path / "names.txt").write_text("".join(f"name {at}\n" for at in range(400)))
    cl.train(tmp_path / "names.txt", records=True, steps=1, **QUICK)
    assert not (tmp_path / "cache").exists()
    cl.train(tmp_path / "large.txt", steps=1, **QUICK)
    assert len(entries(tmp_path / "cache")) == 1


def test_stale_entries_are_removed(tmp_path):
    cache = tmp_path / "cache"
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    encoded([tmp_path / "a.txt"], cache)
    (first,) = entries(cache)
    (first / f".charloom-text-{'0' * 32}.tmp").write_bytes(b"half a file from a killed process")
    encoded([tmp_path / "a.txt"], cache)  # the same again
    assert not list(first.glob(".*.tmp"))

    (first / f".charloom-text-{'0' * 32}.tmp").write_bytes(b"half")
    unfinished, foreign = cache / ("0" * 32), cache / ("f" * 32)
    unfinished.mkdir()
    foreign.mkdir()
    (foreign / ".notes.tmp").write_bytes(b"not charloom's")
    encoded([tmp_path / "b.txt"], cache)
    assert not list(first.glob(".*.tmp"))
    assert unfinished.exists()  # another process may be about to start

    weeks = time.time() - 20 * 24 * 3_600
    os.utime(first / "text.json", (weeks, weeks))
    (tmp_path / "b.txt").write_text("another text b")
    tomorrow = time.time() + 24 * 3_600  # as if a clock had been set back
    os.utime(unfinished, (tomorrow, tomorrow))
    encoded([tmp_path / "b.txt"], cache)
    assert first.exists()
    assert unfinished.exists()

    days = time.time() - 40 * 24 * 3_600
    os.utime(unfinished, (days, days))
    os.utime(foreign, (days, days))
    os.utime(first / "text.json", (days, days))
    encoded([tmp_path / "c.txt"], cache)
    assert not unfinished.exists()
    assert not first.exists()
    assert [path.name for path in foreign.iterdir()] == [".notes.tmp"]
    assert len(entries(cache)) == 2


def test_encoding_waits_for_another_process(tmp_path):
    book, cache = tmp_path / "book.txt", tmp_path / "cache"
    book.write_text(TEXT)
    encoded([book], cache)
    (entry,) = entries(cache)
    locked, done = threading.Event(), []

    def hold():
        with lock_folder(entry):
            locked.set()
            time.sleep(0.5)
            done.append(True)

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait()
    _, events = encoded([book], cache)
    assert events[0] == Encoding(entry, 0, None, is_waiting=True)
    assert done
    thread.join()


def test_a_file_that_changes_between_the_two_readings_is_refused(tmp_path):
    book, cache, settings = tmp_path / "book.txt", tmp_path / "cache", TextSettings()
    book.write_text(TEXT)
    run = encoded_corpus(find_sources([book], settings), settings, cache)
    assert isinstance(next(run), Encoding)
    with book.open("a") as file:
        file.write("more")
    with pytest.raises(SourceError, match="changed while it was read"):
        list(run)
    assert not entries(cache)
    assert not list(cache.glob("*/.*.tmp"))


def test_changed_bytes_with_the_same_times_are_refused(tmp_path):
    book, cache, settings = tmp_path / "book.txt", tmp_path / "cache", TextSettings()
    book.write_text("abc abc\n")
    found = os.stat(book)
    run = encoded_corpus(find_sources([book], settings), settings, cache)
    assert isinstance(next(run), Encoding)
    book.write_text("xyz abc\n")
    os.utime(book, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(SourceError, match="changed while it was read"):
        list(run)
    assert not entries(cache)


def test_a_folder_that_cannot_be_written_is_named_with_the_option(tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    with pytest.raises(OutputError, match=r"cannot write .* with --cache DIR"):
        encoded([tmp_path / "book.txt"], tmp_path / "book.txt" / "below")


def test_a_large_compressed_text_is_read_in_chunks(tmp_path):
    packed = zstandard.ZstdCompressor(level=19).compress(b"the same line again and again\n" * 3_000_000)
    assert len(packed) < 20_000
    (tmp_path / "lines.txt.zst").write_bytes(packed)
    (file,) = find_sources([tmp_path / "lines.txt.zst"], TextSettings()).files
    sizes = [len(chunk) for chunk in file.chunks()]
    assert sum(sizes) == 90_000_000
    assert max(sizes) <= 40_000_000


def test_an_empty_text_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_bytes(b"")
    with pytest.raises(SourceError, match="empty"):
        encoded([tmp_path / "empty.txt"], tmp_path / "cache")


def test_a_cached_text_gives_the_same_model_even_when_resumed(tmp_path):
    book = tmp_path / "book.txt"
    book.write_text(TEXT * 4)
    cl.train(book, out=tmp_path / "memory.safetensors", steps=40, **QUICK)
    settings = RunSettings(
        sources=(book,),
        out=tmp_path / "cached.safetensors",
        network=NetworkSettings(hidden=16, embedding=4),
        training=TrainingSettings(batch_size=4, sequence_length=16, steps=40),
        folder=tmp_path / "run",
        cache=tmp_path / "cache",
    )
    calls = []
    follow(run_training(settings, should_stop=lambda: len(calls.append(0) or calls) == 3), lambda event: None)
    assert (tmp_path / "run" / "checkpoint-000001.safetensors").exists()
    shutil.rmtree(tmp_path / "cache")  # it is encoded again
    cl.resume(tmp_path / "run")
    assert len(entries(tmp_path / "cache")) == 1
    assert (tmp_path / "cached.safetensors").read_bytes() == (tmp_path / "memory.safetensors").read_bytes()


def test_a_cache_needs_continuous_text_and_an_outside_folder(tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    with pytest.raises(SettingError, match="records are kept in memory"):
        cl.train(tmp_path / "book.txt", cache=tmp_path / "cache", records=True, steps=1)
    for source in (tmp_path, tmp_path / "**"):
        with pytest.raises(OutputError, match="would read it as text"):
            cl.train(source, cache=tmp_path / "cache", steps=1)
    with pytest.raises(OutputError, match="is not for texts"):
        cl.train(tmp_path / "*.txt", cache=tmp_path, steps=1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_text_takes_little_memory(tmp_path):
    book = tmp_path / "large.txt"
    piece = (TEXT + "some plain words\n" * 5_000) * 10
    with book.open("w") as file:
        for _ in range(60_000_000 // len(piece)):
            file.write(piece)

    def anonymous_megabytes():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon:"))

    settings = TextSettings()
    before, peak = anonymous_megabytes(), 0.0
    run = encoded_corpus(find_sources([book], settings), settings, tmp_path / "cache")
    while True:
        try:
            next(run)
        except StopIteration as finished:
            corpus = finished.value
            break
        peak = max(peak, anonymous_megabytes() - before)
    assert int(corpus.stream.token_ids.max()) == corpus.vocabulary.size - 1  # reads all of it
    peak = max(peak, anonymous_megabytes() - before)
    assert len(corpus.stream) > 50_000_000
    assert peak < 30


def test_the_default_cache_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    assert token_cache.default_cache() == tmp_path / "charloom" / "texts"
