import re

import pytest

from charloom import machine
from charloom.errors import CharloomError
from charloom.machine import available_memory_bytes
from charloom.models import Network
from charloom.settings import NetworkSettings
from charloom.training import memory, require_memory, training_bytes


def test_large_networks_take_many_copies_of_their_weights():
    settings = NetworkSettings(hidden=16_384)
    weights = 4 * (4 * 16_384 * (16_384 + 64 + 1) + 65 * (16_384 + 64 + 1))
    needed = training_bytes(settings, 65, batch_size=1, sequence_length=1)
    assert 11 * weights < needed < 14 * weights
    assert training_bytes(settings, 65, batch_size=1, sequence_length=1, checkpoints=True) > needed + 8 * weights


def test_longer_sequences_take_memory_per_character_and_unit():
    settings = NetworkSettings(hidden=256, layers=2)
    short, long = (training_bytes(settings, 65, batch_size=64, sequence_length=length) for length in (100, 1100))
    assert 6 < (long - short) / (4 * 64 * 1000 * 2 * 256) < 12


def test_too_large_a_run_is_refused_with_both_figures(monkeypatch):
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 2_000_000_000)
    require_memory(2_000_000_000)
    with pytest.raises(CharloomError, match=re.escape("takes about 2.1 GB of memory, but 2.0 GB are available")):
        require_memory(2_100_000_000)
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: None)
    require_memory(10**15)


_LIMITED = {"a/memory.max": "5000000000", "a/memory.current": "2000000000"}


@pytest.mark.parametrize(
    ("groups", "files", "left"),
    [
        ("0::/\n", {}, 8_000_000_000),
        ("0::/a/b\n", _LIMITED, 3_000_000_000),
        (
            "0::/a/b\n",
            _LIMITED
            | {"a/memory.stat": "anon 1\ninactive_file 500000000", "a/b/memory.max": "max", "a/b/memory.current": "1"},
            3_500_000_000,
        ),
        (
            "4:cpu:/x\n3:memory:/outside\n",
            {"memory/memory.limit_in_bytes": "1000000000", "memory/memory.usage_in_bytes": "1100000000"},
            0,
        ),
        ("nonsense\n", {}, 8_000_000_000),
    ],
)
def test_available_memory_respects_cgroups(tmp_path, monkeypatch, groups, files, left):
    (tmp_path / "meminfo").write_text("MemTotal:  16000000 kB\nMemAvailable:  7812500 kB\n")
    (tmp_path / "cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "memory.stat").touch()
    monkeypatch.setattr(machine, "_MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "sys")
    assert available_memory_bytes() == left
    monkeypatch.setattr(machine, "_MEMORY_INFO", tmp_path / "none")
    assert available_memory_bytes() is None


def test_weights_are_counted_without_allocating_them():
    settings = NetworkSettings(hidden=8, embedding=4)
    small = Network.init(settings, 10, None, None)
    more = training_bytes(settings, 10, 1, 1, checkpoints=True) - training_bytes(settings, 10, 1, 1)
    assert more == 9 * 4 * small.parameters
