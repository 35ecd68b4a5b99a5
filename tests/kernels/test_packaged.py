"""The libraries that a wheel carries: the choice among them, and files that are not as they were built."""

import hashlib
import json
import logging

import jax
import pytest

from charloom.kernels import build, choice, instruction_sets, packaged
from charloom.kernels.build import KernelsUnavailableError
from charloom.kernels.instruction_sets import INSTRUCTION_SETS, usable
from charloom.kernels.packaged import packaged_library

# The lines of /proc/cpuinfo that matter, with the features that these processors really list.
V2 = "fpu mmx fxsr sse sse2 pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm"
HASWELL = f"{V2} fma movbe xsave avx f16c abm bmi1 avx2 bmi2"
SKYLAKE_SERVER = f"{HASWELL} avx512f avx512dq avx512cd avx512bw avx512vl"
CASCADE_LAKE = f"{SKYLAKE_SERVER} avx512_vnni"
ZEN_4 = f"{CASCADE_LAKE} avx512_bf16 avx512vbmi"
SAPPHIRE_RAPIDS = f"{ZEN_4} amx_bf16 amx_tile amx_int8"
CORTEX_A53 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
NEOVERSE_N1 = f"{CORTEX_A53} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
NEOVERSE_V1 = f"{NEOVERSE_N1} sve bf16 i8mm"


@pytest.mark.parametrize(
    ("system", "features", "best", "count"),
    [
        ("linux-x86_64", "fpu sse sse2 pni ssse3 cx16 lahf_lm", None, 0),
        ("linux-x86_64", V2, "x86-64-v2", 1),
        ("linux-x86_64", f"{V2} avx xsave", "x86-64-v2", 1),
        ("linux-x86_64", HASWELL, "x86-64-v3", 2),
        ("linux-x86_64", f"{HASWELL} avx512f avx512cd", "x86-64-v3", 2),
        ("linux-x86_64", SKYLAKE_SERVER, "x86-64-v4", 3),
        ("linux-x86_64", CASCADE_LAKE, "x86-64-v4", 3),
        ("linux-x86_64", ZEN_4, "x86-64-v4-bf16", 4),
        ("linux-x86_64", SAPPHIRE_RAPIDS, "x86-64-v4-amx", 5),
        ("linux-aarch64", CORTEX_A53, "armv8", 1),
        ("linux-aarch64", NEOVERSE_N1, "armv8", 1),
        ("linux-aarch64", NEOVERSE_V1, "armv8-bf16", 2),
        ("darwin-arm64", "", "apple-m1", 1),
        ("darwin-x86_64", "", None, 0),
        ("linux-riscv64", "", None, 0),
    ],
)
def test_the_best_instruction_set_of_a_processor(system, features, best, count):
    found = [each.name for each in usable(system, frozenset(features.split()))]
    assert len(found) == count
    assert next(iter(found), None) == best


@pytest.mark.parametrize(
    ("text", "features"),
    [
        ("processor\t: 0\nvmx flags\t: ept\nflags\t\t: fpu sse2\nbugs\t\t: a\n\nflags\t\t: fpu\n", {"fpu", "sse2"}),
        ("processor\t: 0\nFeatures\t: fp asimd\nCPU part\t: 0xd0c\n", {"fp", "asimd"}),
        ("processor\t: 0\n", set()),
        (None, set()),
    ],
    ids=["x86-64", "Arm", "no features", "no file"],
)
def test_the_features_of_a_processor(text, features, tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(instruction_sets, "_PROCESSOR_INFO", path)
    assert instruction_sets.processor_features() == features


@pytest.fixture
def carried(tmp_path, monkeypatch):
    """A folder of libraries, as in a wheel for x86-64, on a machine with AVX-512 but without BF16."""
    names = [each.name for each in INSTRUCTION_SETS if each.system == "linux-x86_64"]
    for name in names:
        (tmp_path / f"{name}.so").write_text(f"the library for {name}")
    hashes = {name: hashlib.sha256((tmp_path / f"{name}.so").read_bytes()).hexdigest() for name in names}
    (tmp_path / "manifest.json").write_text(json.dumps({"libraries": hashes}))
    monkeypatch.setattr(packaged, "this_system", lambda: "linux-x86_64")
    monkeypatch.setattr(packaged, "processor_features", lambda: frozenset(SKYLAKE_SERVER.split()))
    return tmp_path


def test_the_best_library_is_chosen(carried, caplog):
    found = packaged_library(carried)
    assert found.path == carried / "x86-64-v4.so"
    assert found.sha256 == hashlib.sha256(b"the library for x86-64-v4").hexdigest()
    assert found.why == "x86-64-v4 from the wheel, the best of 5 for this processor"
    assert caplog.messages == []


@pytest.mark.parametrize("damage", ["missing", "changed", "truncated", "another instruction set", "a folder"])
def test_a_damaged_library_is_not_used(damage, carried, caplog):
    path = carried / "x86-64-v4.so"
    if damage == "changed":
        path.write_bytes(path.read_bytes().replace(b"the", b"a"))
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "another instruction set":
        (carried / "x86-64-v4-amx.so").replace(path)
    else:
        path.unlink()
        if damage == "a folder":
            path.mkdir()
    with caplog.at_level(logging.WARNING, "charloom"):
        found = packaged_library(carried)
    assert found.path == carried / "x86-64-v3.so"
    assert found.why == "x86-64-v3 from the wheel, better ones are damaged"
    (message,) = caplog.messages
    assert message.startswith(f"not using {path}: ")
    assert message.endswith(". Reinstall charloom")


def test_if_all_are_damaged_there_is_none(carried, caplog):
    for path in carried.glob("*.so"):
        path.unlink()
    assert packaged_library(carried) is None
    assert len(caplog.messages) == 3


@pytest.mark.parametrize("text", ["", "[]", '{"libraries": 1}', '{"libraries": {}', "\xff", None])
def test_without_a_readable_manifest_there_is_none(text, carried, caplog):
    path = carried / "manifest.json"
    if text is None:
        path.unlink()  # as in a source distribution
    else:
        path.write_text(text, "latin-1")
    assert packaged_library(carried) is None
    assert len(caplog.messages) == (text is not None)


def test_a_source_tree_carries_none():
    assert packaged_library() is None


@pytest.fixture
def loading(carried, monkeypatch):
    """Returns a function that loads the kernels with the wheel's libraries above."""
    monkeypatch.setattr(choice, "packaged_library", lambda: packaged_library(carried))
    monkeypatch.delenv("CXX", raising=False)
    return choice._load.__wrapped__


@pytest.mark.usefixtures("native_library")
def test_a_library_that_cannot_be_loaded_is_compiled_instead(loading, carried, caplog):
    loaded = loading()
    assert loaded.why == "compiled for this processor"
    (message,) = caplog.messages
    assert message.startswith(f"the wheel's kernels do not work here: cannot load {carried / 'x86-64-v4.so'}: ")


@pytest.mark.usefixtures("native_library")
def test_a_library_that_jaxlib_refuses_is_compiled_instead(loading, native_library, carried, caplog, monkeypatch):
    content = native_library.read_bytes()
    (carried / "x86-64-v4.so").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    (carried / "manifest.json").write_text(json.dumps({"libraries": {"x86-64-v4": sha256}}))
    register = jax.ffi.register_ffi_target

    def refuse(name, function, platform):
        if name.endswith(sha256[:16]):
            raise RuntimeError("the API version (0.9) is incompatible\nand more")
        register(name, function, platform=platform)

    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    assert loading().why == "compiled for this processor"
    (message,) = caplog.messages
    assert message.endswith("x86-64-v4.so: the API version (0.9) is incompatible")


def test_without_a_compiler_too_the_problem_reaches_the_reference(loading, monkeypatch):
    monkeypatch.setattr(build, "_COMPILER_NAMES", ("there-is-no-such-compiler",))
    with pytest.raises(KernelsUnavailableError, match="no C\\+\\+ compiler"):
        loading()


@pytest.mark.usefixtures("native_library")
def test_with_cxx_the_wheels_libraries_are_not_used(loading, monkeypatch, caplog):
    monkeypatch.setenv("CXX", build.compile_command()[0])
    assert loading().why == "compiled for this processor"
    assert caplog.messages == []


@pytest.mark.usefixtures("native_library")
def test_a_cache_that_another_processor_shares_has_another_library_for_it(monkeypatch):
    paths = []
    monkeypatch.setattr(build, "_make", lambda command, sources, path: paths.append(path))
    own = build.library_path()
    assert paths == []
    monkeypatch.setattr(build, "_processor", lambda: "flags : fpu sse2")
    assert build.library_path() != own
    assert len(paths) == 1
