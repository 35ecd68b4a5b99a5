#!/usr/bin/env python3
"""Builds wheels that carry the native kernels, for Linux and macOS, into dist/.

`ziglang` cross-compiles for every platform, against the C library of manylinux_2_28. Its own C++ library is linked
statically. The folder build/ffi keeps the FFI headers between runs.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

from charloom.kernels.build import FLAGS, compile_library
from charloom.kernels.instruction_sets import INSTRUCTION_SETS
from charloom.kernels.packaged import MANIFEST

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src" / "charloom" / "kernels" / "cpp"
# A runtime accepts handlers of older FFI versions but not of newer ones, so the headers are those of the oldest jaxlib
# that pyproject.toml allows.
JAXLIB = "0.7.0"
GLIBC = (2, 28)
# Per system: the wheel's platform, and Zig's name of the system.
PLATFORMS = {
    "linux-x86_64": ("manylinux_2_28_x86_64", "x86_64-linux-gnu.2.28"),
    "linux-aarch64": ("manylinux_2_28_aarch64", "aarch64-linux-gnu.2.28"),
    "darwin-arm64": ("macosx_11_0_arm64", "aarch64-macos.11.0"),
}
_ZIG = (sys.executable, "-m", "ziglang", "c++")


def main() -> None:
    """Builds the wheel of each system."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"which of {', '.join(PLATFORMS)} (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder for the wheels")
    arguments = parser.parse_args()
    if unknown := set(arguments.systems) - set(PLATFORMS):
        parser.error(f"no such system: {', '.join(sorted(unknown))}. Choose from {', '.join(PLATFORMS)}")
    headers = ffi_headers(ROOT / "build" / "ffi")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (pure,) = folder.glob("*.whl")
        for system in arguments.systems or PLATFORMS:
            platform, target = PLATFORMS[system]
            libraries = compile_libraries(system, target, headers, folder / system)
            wheel = platform_wheel(pure, platform, libraries, arguments.out)
            if system.startswith("linux-"):
                require_platform(wheel, platform)
            print(f"{wheel}, {wheel.stat().st_size / 1e6:.1f} MB: {', '.join(libraries)}", flush=True)


def ffi_headers(folder: Path) -> Path:
    """Returns the folder of jaxlib's headers, which are the same for every platform. They are downloaded once."""
    headers = folder / JAXLIB / "jaxlib" / "include"
    if not headers.exists():
        with tempfile.TemporaryDirectory() as temporary:
            any_platform = ("--python-version", "3.12", "--platform", "manylinux2014_x86_64")
            pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:")
            subprocess.run([*pip, *any_platform, "--dest", temporary, f"jaxlib=={JAXLIB}"], check=True)
            (wheel,) = Path(temporary).glob("*.whl")
            with ZipFile(wheel) as opened:
                names = [name for name in opened.namelist() if name.startswith("jaxlib/include/")]
                opened.extractall(folder / JAXLIB, names)
    return headers


def compile_libraries(system: str, target: str, headers: Path, folder: Path) -> dict[str, Path]:
    """Returns a library for each instruction set of a system, by name."""
    libraries = {}
    for each in INSTRUCTION_SETS:
        if each.system != system:
            continue
        print(f"{each.label} for {target}", flush=True)
        sources = folder / each.name
        shutil.copytree(SOURCES, sources)
        zig = [*_ZIG, "-target", target, *FLAGS, "-g0", "-w"]
        # Only the kernels need the instruction set. Zig compiles its C++ library once for all libraries of a system.
        link = [*zig, "-s"]
        if system.startswith("darwin-"):
            link.append(f"-Wl,-install_name,@rpath/{each.name}.so")  # otherwise its path on this machine
        libraries[each.name] = folder / f"{each.name}.so"
        compile_library([*zig, *each.options, "-isystem", str(headers)], link, sources, libraries[each.name])
    return libraries


def platform_wheel(pure: Path, platform: str, libraries: dict[str, Path], out: Path) -> Path:
    """Returns a copy of a wheel that is for one platform and carries libraries."""
    with tempfile.TemporaryDirectory() as temporary:
        _wheel("unpack", pure, "--dest", temporary)
        (folder,) = Path(temporary).iterdir()
        carried = folder / "charloom" / "kernels" / "libraries"
        carried.mkdir()
        for name, library in libraries.items():
            shutil.copy(library, carried / f"{name}.so")
        (carried / MANIFEST).write_text(json.dumps(manifest(libraries), indent=1) + "\n")
        (information,) = folder.glob("*.dist-info/WHEEL")
        text = information.read_text()
        text = text.replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
        information.write_text(text.replace("Tag: py3-none-any", f"Tag: py3-none-{platform}"))
        _wheel("pack", folder, "--dest-dir", out)
    return out / pure.name.replace("-any.whl", f"-{platform}.whl")


def manifest(libraries: dict[str, Path]) -> dict[str, object]:
    """Returns what a wheel says about its libraries: their hashes, their sources' and the FFI headers."""
    return {
        "jaxlib": JAXLIB,
        "sources": _sha256(*(path for path in sorted(SOURCES.iterdir()) if path.suffix in (".h", ".cc"))),
        "libraries": {name: _sha256(path) for name, path in libraries.items()},
    }


def require_platform(wheel: Path, platform: str) -> None:
    """Exits if the libraries of a wheel need a newer system than the wheel's platform."""
    audited = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", "--disable-isa-ext-check", wheel],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r'platform tag:\s+"manylinux_(\d+)_(\d+)_', audited)
    if found is None or tuple(map(int, found.groups())) > GLIBC:
        sys.exit(f"{wheel} does not run everywhere that {platform} promises:\n{audited}")


def _sha256(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _wheel(*arguments: str | Path) -> None:
    command: Sequence[str | Path] = (sys.executable, "-m", "wheel", *arguments)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
