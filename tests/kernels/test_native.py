"""The native kernels: comparison with the reference, use through JAX, and compilation of the library.

`make kernels` checks their arithmetic without XLA, threads and forks, with driver.cc.
"""

import os
import stat
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filelock import FileLock

from charloom.kernels import choice as kernel_choice
from charloom.kernels import dense, kernels_in_use
from charloom.kernels.build import KernelsUnavailableError, library_path
from charloom.kernels.choice import has_native_kernel, reference_reason, uses_native_dense, uses_native_kernel
from tests.kernels.test_sequences import make, run

CELLS = [("lstm", "sigmoid", "tanh"), ("gru", "sigmoid", "tanh"), ("elman", "sigmoid", "tanh")]

pytestmark = [
    pytest.mark.usefixtures("native_library"),
    pytest.mark.skipif(jax.default_backend() != "cpu", reason="JAX calls native kernels only on the CPU"),
]

every_cell = pytest.mark.parametrize("variant", CELLS, ids=lambda variant: variant[0])


def outputs_and_gradients(variant, hidden, batch_size, time, kernels, monkeypatch):
    monkeypatch.setenv("CHARLOOM_KERNELS", kernels)
    *arguments, resets = make(variant, hidden, batch_size, time)

    def loss(cell, features, carry):
        outputs, last = run(cell, features, carry, resets)
        weights = jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)
        return (outputs * weights).sum() + sum((state**2).sum() for state in jax.tree.leaves(last)), (outputs, last)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*arguments)


@every_cell
@pytest.mark.parametrize(("hidden", "batch_size", "time"), [(1, 1, 1), (62, 3, 65), (513, 16, 2)])
def test_native_kernels_agree_with_the_reference(variant, hidden, batch_size, time, monkeypatch):
    native = outputs_and_gradients(variant, hidden, batch_size, time, "native", monkeypatch)
    reference = outputs_and_gradients(variant, hidden, batch_size, time, "reference", monkeypatch)
    for got, wanted in zip(jax.tree.leaves(native), jax.tree.leaves(reference), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * max(1, float(np.abs(wanted).max())))


@every_cell
def test_vmap_over_models_equals_separate_calls(variant, monkeypatch):
    monkeypatch.setenv("CHARLOOM_KERNELS", "native")
    models = [make(variant, 20, 3, 5, seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)

    def gradient(cell, features, carry, resets):
        return jax.grad(lambda cell: jnp.sum(run(cell, features, carry, resets)[0] ** 2))(cell)

    together = jax.jit(jax.vmap(gradient))(*stacked)
    for index, model in enumerate(models):
        separate = jax.jit(gradient)(*model)
        for got, wanted in zip(jax.tree.leaves(together), jax.tree.leaves(separate), strict=True):
            np.testing.assert_array_equal(got[index], wanted)


def charloom(cache, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "charloom", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache), **environment},
    )


def test_native_kernels_are_used_when_there_is_a_compiler():
    assert kernels_in_use().name == "native"


def test_with_jax_on_another_device_only_sampling_is_native(monkeypatch):
    """This tests only the rule. tests/test_gpu.py tests a GPU's results."""
    monkeypatch.setenv("CHARLOOM_KERNELS", "native")
    cell, features, _, _ = make(CELLS[0], 64, 3, 5)
    asked = cell.features(features), cell.recurrent_kernel, cell.cell_activation
    heads = jnp.zeros((5, 3, 64)), jnp.zeros((64, 7))
    assert uses_native_kernel(*asked)
    assert uses_native_dense(*heads)
    monkeypatch.setattr(kernel_choice, "_computes_on_cpu", lambda: False)
    assert not uses_native_kernel(*asked)
    assert not uses_native_dense(*heads)
    assert has_native_kernel("lstm", *asked[1:])


def test_a_cell_without_native_kernels_uses_the_reference(monkeypatch):
    cell, *_ = make(CELLS[0], 64, 3, 5)
    asked = cell.recurrent_kernel, cell.cell_activation
    for choice in ("auto", "native"):
        monkeypatch.setenv("CHARLOOM_KERNELS", choice)
        assert has_native_kernel("lstm", *asked)
        assert not has_native_kernel("mingru", *asked)
        assert reference_reason("lstm", 64, "tanh", 5) is None
        assert reference_reason("mingru", 64, "tanh", 5) == "minGRU has no native kernels"
    monkeypatch.setenv("CHARLOOM_KERNELS", "reference")
    assert (
        reference_reason("mingru", 64, "tanh") == reference_reason("lstm", 64, "tanh") == "CHARLOOM_KERNELS=reference"
    )


def test_without_a_compiler_the_reference_runs_with_a_warning(tmp_path):
    done = charloom(tmp_path, "show", CXX="there-is-no-such-compiler")
    assert done.returncode == 0
    why = "no C++ compiler: there-is-no-such-compiler not found"
    assert done.stderr == f"native kernels are unavailable, using the slower reference: {why}\n"
    assert f"reference: {why}" in done.stdout
    asked = charloom(tmp_path, "show", CXX="there-is-no-such-compiler", CHARLOOM_KERNELS="reference")
    assert asked.stderr == ""
    assert "reference: CHARLOOM_KERNELS=reference" in asked.stdout
    for choice, words in (
        ("native", f"native kernels are unavailable: {why}"),
        ("fast", "must be one of native, reference, auto; got 'fast'"),
    ):
        refused = charloom(tmp_path, "show", CXX="there-is-no-such-compiler", CHARLOOM_KERNELS=choice)
        assert refused.returncode == 1
        assert refused.stderr.startswith("charloom: CHARLOOM_KERNELS")
        assert words in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_if_the_compiler_fails_the_reference_runs(tmp_path):
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho 'kernels.h:1: error: not today' >&2\nexit 3\n")
    compiler.chmod(0o755)
    done = charloom(tmp_path / "cache", "show", CXX=str(compiler))
    assert done.returncode == 0
    assert "failed: kernels.h:1: error: not today" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "cache").rglob("*.so"))


@pytest.fixture
def copying_compiler(tmp_path, monkeypatch):
    """A compiler that copies the existing library. It writes a line to a file each time it links one."""
    library = library_path()
    compiler, runs = tmp_path / "compiler", tmp_path / "runs"
    compiler.write_text(
        f'#!/bin/sh\ncase "$*" in *-shared*) echo run >> {runs};; esac\n'
        f'while [ "$1" != -o ]; do shift; done\ncp {library} "$2"\n'
    )
    compiler.chmod(0o755)
    runs.touch()
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda: len(runs.read_text().splitlines())


def test_the_library_is_compiled_once_into_a_private_folder(copying_compiler):
    path = library_path()
    assert library_path() == path
    assert copying_compiler() == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {file.suffix for file in path.parent.iterdir()} - {".lock"} == {".sha256", ".so"}


def test_a_library_that_others_can_write_is_compiled_again(copying_compiler, tmp_path):
    path = library_path()
    path.chmod(0o722)
    assert library_path() == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere.so")
    assert library_path() == path
    assert not path.is_symlink()
    assert copying_compiler() == 3


def test_a_damaged_library_is_compiled_again(copying_compiler, tmp_path):
    path = library_path()
    path.write_bytes(path.read_bytes()[:1000])
    done = charloom(tmp_path / "cache", "show")
    assert done.returncode == 0
    assert "native: compiled for this processor" in done.stdout
    assert copying_compiler() == 2


def test_a_folder_that_others_can_write_is_refused(copying_compiler):
    folder = library_path().parent
    folder.chmod(0o777)
    with pytest.raises(KernelsUnavailableError, match="other users can write there"):
        library_path()
    folder.chmod(0o700)
    moved = folder.rename(folder.with_name("moved"))
    folder.symlink_to(moved)
    with pytest.raises(KernelsUnavailableError, match="other users can write there"):
        library_path()


def test_files_of_a_killed_process_are_removed(copying_compiler):
    path = library_path()
    abandoned, locked = (path.with_name(f"compiling-kernels-{name}") for name in ("0" * 16, "1" * 16))
    own, foreign = path.with_name(f"compiling-{path.stem}"), path.with_name("compiling.txt")
    for folder in (abandoned, locked, own):
        folder.mkdir()
        (folder / "handlers.cc").touch()
    foreign.touch()
    path.unlink()
    with FileLock(path.with_name(f"kernels-{'1' * 16}.lock")):  # as if another process were compiling there
        assert library_path() == path
    assert copying_compiler() == 2
    assert not abandoned.exists()
    assert not own.exists()
    assert locked.exists()
    assert foreign.exists()


def test_two_processes_that_start_together_compile_once(copying_compiler):
    code = "from charloom.kernels.build import library_path; print(library_path())"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate()[0] for process in started}
    assert len(paths) == 1
    assert copying_compiler() == 1


@pytest.mark.parametrize(
    ("choice", "hidden", "steps", "natively"),
    [
        ("auto", 63, 8, False),
        ("auto", 63, 9, True),
        ("auto", 64, 2, True),
        ("auto", 64, 1, False),
        ("native", 1, 1, True),
        ("reference", 64, 9, False),
    ],
)
def test_short_sequences_of_small_layers_use_the_reference_unless_native_is_requested(
    choice, hidden, steps, natively, monkeypatch
):
    monkeypatch.setenv("CHARLOOM_KERNELS", choice)
    cell, features, *_ = make(CELLS[0], hidden, 1, steps)
    inputs = cell.features(features)
    assert uses_native_kernel(inputs, cell.recurrent_kernel, "tanh") is natively
    assert not uses_native_kernel(inputs, cell.recurrent_kernel, "softmax")


def head_and_gradients(arguments, kernels, monkeypatch):
    monkeypatch.setenv("CHARLOOM_KERNELS", kernels)

    def loss(*arguments):
        logits = dense(*arguments)
        return (logits * jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)).sum(), logits

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*arguments)


@pytest.mark.parametrize(("time", "batch_size", "hidden", "vocab"), [(2, 1, 64, 1), (8, 3, 128, 57), (50, 50, 64, 300)])
def test_a_head_agrees_with_the_reference(time, batch_size, hidden, vocab, monkeypatch):
    rng = np.random.default_rng(0)
    shapes = (time, batch_size, hidden), (hidden, vocab), (vocab,)
    arguments = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    native = head_and_gradients(arguments, "native", monkeypatch)
    assert uses_native_dense(*arguments[:2])
    reference = head_and_gradients(arguments, "reference", monkeypatch)
    for got, wanted in zip(jax.tree.leaves(native), jax.tree.leaves(reference), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * max(1, float(np.abs(wanted).max())))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 3, 64), "float32"),
        ((3, 64), "float32"),
        ((2, 3, 48), "float32"),
        ((2, 3, 72), "float32"),
        ((2, 3, 64), "float64"),
    ],
    ids=["one step", "no steps", "few units", "parts of a vector", "float64"],
)
def test_other_heads_use_the_reference(shape, dtype, monkeypatch):
    monkeypatch.setenv("CHARLOOM_KERNELS", "native")
    with jax.enable_x64(dtype == "float64"):
        assert not uses_native_dense(jnp.zeros(shape, dtype), jnp.zeros((shape[-1], 5), dtype))


def test_vmap_over_heads_equals_separate_calls(monkeypatch):
    monkeypatch.setenv("CHARLOOM_KERNELS", "native")
    rng = np.random.default_rng(0)
    shapes = (3, 4, 2, 64), (3, 64, 5), (3, 5)
    stacked = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    together = jax.jit(jax.vmap(dense))(*stacked)
    for index in range(3):
        np.testing.assert_array_equal(together[index], dense(*(array[index] for array in stacked)))
