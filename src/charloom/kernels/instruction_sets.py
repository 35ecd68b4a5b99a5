"""The instruction sets that a wheel has libraries for, and which of them this processor has.

`scripts/wheels.py` compiles one library for each of them. This module reads files only, and imports nothing heavy.
"""

import platform
import sys
from pathlib import Path
from typing import NamedTuple

_PROCESSOR_INFO = Path("/proc/cpuinfo")
_FEATURE_LINES = ("flags", "Features")  # on x86-64, and on Arm


class InstructionSet(NamedTuple):
    """An instruction set.

    Attributes:
        name: the name of its library in the wheel, without the suffix.
        label: what `charloom show` calls it.
        system: `linux-x86_64`, `linux-aarch64` or `darwin-arm64`.
        options: the compiler options, as Zig's Clang takes them.
        features: what /proc/cpuinfo must list. Linux lists only what it also enables.
    """

    name: str
    label: str
    system: str
    options: tuple[str, ...]
    features: frozenset[str] = frozenset()


# https://gitlab.com/x86-psABIs/x86-64-ABI defines the levels; /proc/cpuinfo calls SSE3 "pni" and LZCNT "abm".
_V2 = frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"})
_V3 = _V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_V4_BF16 = _V4 | {"avx512_bf16", "avx512_vnni"}
_V4_AMX = _V4_BF16 | {"amx_tile", "amx_bf16", "amx_int8"}
_ARM_BF16 = frozenset({"asimd", "asimdrdm", "atomics", "bf16", "crc32"})

_V4_BF16_OPTION = "-march=x86_64_v4+avx512bf16+avx512vnni"
INSTRUCTION_SETS = (
    InstructionSet(
        *("x86-64-v4-amx", "x86-64-v4 + BF16 + AMX", "linux-x86_64"),
        options=(f"{_V4_BF16_OPTION}+amx_tile+amx_bf16+amx_int8",),
        features=_V4_AMX,
    ),
    InstructionSet("x86-64-v4-bf16", "x86-64-v4 + BF16", "linux-x86_64", (_V4_BF16_OPTION,), _V4_BF16),
    InstructionSet("x86-64-v4", "x86-64-v4", "linux-x86_64", ("-march=x86_64_v4",), _V4),
    InstructionSet("x86-64-v3", "x86-64-v3", "linux-x86_64", ("-march=x86_64_v3",), _V3),
    InstructionSet("x86-64-v2", "x86-64-v2", "linux-x86_64", ("-march=x86_64_v2",), _V2),
    InstructionSet("armv8-bf16", "Armv8 + BF16", "linux-aarch64", ("-mcpu=generic+v8_2a+bf16",), _ARM_BF16),
    InstructionSet("armv8", "Armv8", "linux-aarch64", ("-mcpu=generic",), frozenset({"asimd"})),
    InstructionSet("apple-m1", "Apple M1", "darwin-arm64", ("-mcpu=apple_m1",)),
)
"""The instruction sets, for each system from best to worst."""


def this_system() -> str:
    """Returns this system's name, such as `linux-x86_64`."""
    return f"{sys.platform}-{platform.machine()}"


def processor_features() -> frozenset[str]:
    """Returns the features that the system lists for this processor; none if it does not list them."""
    try:
        lines = _PROCESSOR_INFO.read_text().splitlines()
    except OSError:
        return frozenset()
    line = next((line for line in lines if line.startswith(_FEATURE_LINES)), "")
    return frozenset(line.partition(":")[2].split())


def usable(system: str, features: frozenset[str]) -> list[InstructionSet]:
    """Returns the instruction sets of a processor, from best to worst.

    >>> [each.name for each in usable("darwin-arm64", frozenset())]
    ['apple-m1']
    """
    return [each for each in INSTRUCTION_SETS if each.system == system and each.features <= features]
