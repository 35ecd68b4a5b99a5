"""Every native operation refuses arguments that it would read out of bounds, and survives a lack of memory."""

import copy
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charloom.kernels import (
    SAMPLER_RECORD,
    Activations,
    Generator,
    GeneratorState,
    LayerWeights,
    Refill,
    choice,
    kernels_in_use,
    structures,
)
from charloom.kernels.build import KernelsUnavailableError, library_path
from charloom.kernels.native import _Layer
from charloom.kernels.operations import FUNCTIONS, HANDLERS

pytestmark = [
    pytest.mark.usefixtures("native_library"),
    pytest.mark.skipif(jax.default_backend() != "cpu", reason="JAX calls native kernels only on the CPU"),
]

TIME, BATCH_SIZE, FEATURES, HIDDEN, ROWS = 3, 2, 5, 20, 4
GATE_COUNTS = {"lstm": 4, "gru": 3, "elman": 1}
WHOLE = 32  # units, in whole vectors


def test_the_table_lists_every_exported_function():
    if shutil.which("nm") is None:
        pytest.skip("there is no nm")
    option = "-gU" if sys.platform == "darwin" else "-D"
    listed = subprocess.run(["nm", option, library_path()], capture_output=True, text=True, check=True).stdout
    exported = {word.lstrip("_") for word in listed.split() if word.lstrip("_").startswith("charloom_")}
    assert exported == {f"charloom_{name}" for name in (*HANDLERS, *FUNCTIONS)}


@pytest.mark.parametrize("name", structures.SIZES)
def test_a_library_with_another_structure_is_not_used(name, monkeypatch):
    structures.require_equal_sizes(choice.loaded_library())
    size = structures.SIZES[name]
    monkeypatch.setattr(structures, "SIZES", {**structures.SIZES, name: size + 8})
    with pytest.raises(KernelsUnavailableError, match=rf"^the library's {name} has {size} bytes, but charloom's has "):
        choice._load.__wrapped__()
    kernels = choice._chosen.__wrapped__
    monkeypatch.setattr(choice, "_load", choice._load.__wrapped__)
    assert kernels("auto").name == "reference"
    assert name in kernels("auto").why


def test_a_structure_that_the_library_does_not_know_is_a_difference(monkeypatch):
    monkeypatch.setattr(structures, "SIZES", {"Other": 8})
    with pytest.raises(KernelsUnavailableError, match=r"^the library's Other has 0 bytes, but charloom's has 8$"):
        choice._load.__wrapped__()


def test_a_library_without_a_function_is_not_used(monkeypatch):
    monkeypatch.setitem(FUNCTIONS, "other", (None, ()))
    with pytest.raises(KernelsUnavailableError, match=r"cannot load .*charloom_other"):
        choice._load.__wrapped__()


def floats(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def layer(cell):
    gates = GATE_COUNTS[cell] * HIDDEN
    return {
        "rows": jnp.asarray(np.arange(TIME * BATCH_SIZE).reshape(TIME, BATCH_SIZE) % ROWS, jnp.int32),
        "inputs": floats(TIME, BATCH_SIZE, FEATURES),
        "kernel": floats(FEATURES, gates),
        "recurrent_kernel": floats(HIDDEN, gates),
        "start": floats(BATCH_SIZE, HIDDEN),
        "resets": jnp.zeros((TIME, BATCH_SIZE), bool),
    }


OUTPUTS, STATE, TABLE = (
    (TIME, BATCH_SIZE, HIDDEN),
    (BATCH_SIZE, HIDDEN),
    lambda cell: (ROWS, GATE_COUNTS[cell] * HIDDEN),
)


def gradient_shapes(cell):
    gates = GATE_COUNTS[cell] * HIDDEN
    return [TABLE(cell), (TIME, BATCH_SIZE, FEATURES), (FEATURES, gates), (HIDDEN, gates)]


def operation(name):
    """Returns the arguments of an operation by name, and the shapes of its results."""
    cell, direction = name.split("_")
    kept = (TIME * BATCH_SIZE * 4 * WHOLE,)
    cells = (TIME * BATCH_SIZE * WHOLE,)
    if cell == "dense":
        values, kernel = floats(6, 64), floats(64, 7)
        if direction == "forward":
            return {"values": values, "kernel": kernel, "bias": floats(7)}, [(6, 7)]
        return {"values": values, "kernel": kernel, "results": floats(6, 7)}, [(6, 64), (64, 7), (7,)]
    arguments = layer(cell)
    table, outputs, state, bias = floats(*TABLE(cell)), floats(*OUTPUTS), floats(*STATE), (GATE_COUNTS[cell] * HIDDEN,)
    if name == "lstm_forward":
        return {**arguments, "start_cell": state, "table": table}, [OUTPUTS, STATE, kept, cells]
    if name == "gru_forward":
        return {**arguments, "recurrent_bias": floats(*bias), "table": table}, [OUTPUTS, kept]
    if name == "elman_forward":
        return {**arguments, "table": table}, [OUTPUTS]
    cotangents = {"d_outputs": outputs, "d_last": state}
    if name == "lstm_backward":
        saved = {"start_cell": state, "outputs": outputs, "cells": floats(*cells), "gates": floats(*kept)}
        results = [kept, *gradient_shapes(cell), STATE, STATE]
        return {**arguments, **saved, **cotangents, "d_last_cell": state}, results
    if name == "gru_backward":
        saved = {"outputs": outputs, "gates": floats(*kept)}
        return {**arguments, **saved, **cotangents}, [kept, *gradient_shapes(cell), bias, STATE]
    return {**arguments, "outputs": outputs, **cotangents}, [*gradient_shapes(cell), STATE]


def run(name, arguments, results):
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in results]
    names = ("bfloat16",) if name.startswith("dense") else ("bfloat16", "hard_gates", "relu")
    attributes = dict.fromkeys(names, np.int32(0))
    in_place = {list(arguments).index("gates"): 0} if "gates" in arguments else {}
    call = jax.ffi.ffi_call(f"charloom_{name}_{kernels_in_use().suffix}", shapes, input_output_aliases=in_place)
    return jax.block_until_ready(jax.jit(lambda arrays: call(*arrays, **attributes))(list(arguments.values())))


@pytest.mark.parametrize("name", HANDLERS)
def test_a_handler_refuses_arrays_that_do_not_fit(name):
    arguments, results = operation(name)
    run(name, arguments, results)
    for argument, array in arguments.items():
        if argument == "gates":  # shares memory with a result, which is checked below
            continue
        for wrong in (array[:-1], array[..., :-1]):
            if name.startswith("dense") and argument == "values" and wrong.shape[0] != array.shape[0]:
                continue  # the results give the number of rows
            with pytest.raises(Exception, match=r"INVALID_ARGUMENT: charloom's"):
                run(name, {**arguments, argument: wrong}, results)
    for index, shape in enumerate(results):
        if in_place := (index == 0 and "gates" in arguments):
            smaller = {**arguments, "gates": arguments["gates"][:-1]}
        wrong_results = [*results[:index], (shape[0] - 1, *shape[1:]), *results[index + 1 :]]
        with pytest.raises(Exception, match=r"INVALID_ARGUMENT: charloom's"):
            run(name, smaller if in_place else arguments, wrong_results)


@pytest.mark.parametrize("name", [name for name in HANDLERS if not name.startswith("dense")])
@pytest.mark.parametrize("row", [-1, ROWS, 2**31 - 1])
def test_a_handler_refuses_an_id_outside_the_table(name, row):
    arguments, results = operation(name)
    rows = arguments["rows"].at[1, 1].set(row)
    with pytest.raises(
        Exception, match=rf"INVALID_ARGUMENT: charloom's {name}: id {row} is outside the table of {ROWS} rows"
    ):
        run(name, {**arguments, "rows": rows}, results)


@pytest.mark.parametrize("argument", ["rows", "inputs", "kernel", "recurrent_kernel", "start", "resets"])
def test_shapes_that_do_not_fit_are_refused_when_a_layer_is_traced(argument):
    arguments, table = layer("lstm"), floats(*TABLE("lstm"))
    _Layer(*arguments.values())._require_fitting(table)
    with pytest.raises(ValueError, match="the kernels read"):
        _Layer(*{**arguments, argument: arguments[argument][:, 1:]}.values())._require_fitting(table)


def weights(gate_count, rows=7):
    rng = np.random.default_rng(1)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    gates = gate_count * HIDDEN
    activations = Activations("sigmoid", "tanh")
    layers = [
        LayerWeights(
            draw(HIDDEN, gates), draw(gates), draw(HIDDEN, gates), draw(gates) if gate_count == 3 else None, activations
        )
        for _ in range(2)
    ]
    return draw(rows, gates), layers, (draw(HIDDEN, 6), draw(6))


def generator(gate_count=4):
    cell = {4: "lstm", 3: "gru", 1: "elman"}[gate_count]
    return Generator(cell, *weights(gate_count))


def changed(layers, **change):
    return [layers[0], layers[1]._replace(**change)]


WRONG_WEIGHTS = [
    lambda table, layers, head: (table[:5], layers, head),
    lambda table, layers, head: (table[:, 1:], layers, head),
    lambda table, layers, head: (table.astype(np.float64), layers, head),
    lambda table, layers, head: (table, changed(layers, kernel=layers[1].kernel[1:]), head),
    lambda table, layers, head: (table, changed(layers, bias=layers[1].bias[1:]), head),
    lambda table, layers, head: (table, changed(layers, recurrent_kernel=layers[1].recurrent_kernel[1:]), head),
    lambda table, layers, head: (table, changed(layers, recurrent_bias=layers[1].bias), head),
    lambda table, layers, head: (table, layers, (head[0][1:], head[1])),
    lambda table, layers, head: (table, layers, (head[0], head[1][1:])),
    lambda table, layers, head: (table, layers, None),
]


def samplers(count, **fields):
    powers = np.zeros(2048, np.uint32)
    made = np.zeros(count, SAMPLER_RECORD)
    made["temperature"], made["coarse"], made["fine"] = -1, powers.ctypes.data, powers.ctypes.data
    for name, value in fields.items():
        made[name] = value
    return made


@pytest.mark.parametrize(
    ("rows", "given", "words"),
    [
        ([[0, 7]], samplers(1), "id 7 is outside the table of 7 rows"),
        ([[0, -1]], None, "samplers are missing"),
        ([[0], [0], [0]], None, "states of 2 texts, but rows of 3"),
        ([[-1]], samplers(1, top_k=-1), "out of its range"),
        ([[-1]], samplers(1, temperature=np.nan), "out of its range"),
        ([[-1]], samplers(1, temperature=1, fine=0), "a table of powers is missing"),
    ],
)
def test_a_generator_refuses_what_it_would_read_out_of_bounds(rows, given, words):
    made = generator()
    with pytest.raises(ValueError, match=words):
        made.run(made.begin(2), np.array(rows, np.int32), given)


WRONG_STATES = [
    lambda right: right._replace(hidden=right.hidden[:1]),
    lambda right: right._replace(cells=right.cells[..., 1:]),
    lambda right: right._replace(logits=right.logits[:, 1:]),
    lambda right: right._replace(logits=right.logits.astype(np.float64)),
    lambda right: right._replace(hidden=np.asfortranarray(right.hidden)),
]


def refusals():
    """Makes every wrong call, without the tests' type checks, which would fail first. Returns the number of calls."""
    made = generator()
    right, rows = made.begin(2), np.zeros((2, 1), np.int32)
    made.run(right, rows)
    calls = [lambda change=change: Generator("lstm", *change(*weights(4))) for change in WRONG_WEIGHTS]
    calls += [lambda change=change: made.run(change(right), rows) for change in WRONG_STATES]
    calls.append(lambda: made.run(right, rows, samplers(3)))
    streams, one = np.zeros(1, np.uint32), made.begin(1)
    calls += [
        lambda: made.run(right, rows, samplers(2), Refill(one, streams.astype(np.int64), 5, 0)),
        lambda: made.run(right, rows, samplers(2), Refill(right, streams, 5, 0)),
        lambda: made.run(right, rows, samplers(2), Refill(one._replace(logits=one.logits[:, 1:]), streams, 5, 0)),
    ]
    calls += [
        lambda: made.run(right, rows.astype(np.int64)),
        lambda: made.run(right, np.zeros((2, 2), np.int32)[:, ::2]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"kernels read|C order|recurrent biases|tokens|single text"):
            call()
    return len(calls)


def test_a_generator_of_a_cell_without_native_kernels_is_refused():
    with pytest.raises(ValueError, match="minGRU has no native kernels"):
        Generator("mingru", *weights(2))


def test_weights_and_states_of_different_networks_are_refused():
    code = "from tests.kernels.test_operations import refusals; print(refusals())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == f"{len(WRONG_WEIGHTS) + len(WRONG_STATES) + 6}\n", done.stderr


@pytest.mark.parametrize("length", [0, -1])
def test_a_waiting_text_needs_a_length(length):
    made = generator()
    with pytest.raises(ValueError, match=f"length is {length}"):
        made.run(
            made.begin(1),
            np.full((1, 2), -1, np.int32),
            samplers(1),
            Refill(made.begin(1), np.zeros(1, np.uint32), length, 0),
        )


@pytest.mark.parametrize("gate_count", [4, 3, 1])
def test_waiting_texts_begin_where_others_end(gate_count):
    made = generator(gate_count)
    state = made.begin(1)
    made.run(state, np.array([[2, 5]], np.int32))
    both = GeneratorState(*(np.repeat(array, 2, axis=-2) for array in state))
    alone = np.full((1, 12), -1, np.int32)
    made.run(GeneratorState(*(array.copy() for array in state)), alone, samplers(1))  # greedy: all texts are equal
    rows = np.full((2, 12), -1, np.int32)
    begun = made.run(both, rows, samplers(2), Refill(state, np.arange(5, dtype=np.uint32), 3, -1))
    # Each text has three tokens, so both places get new texts in steps 3, 6 and 9; the last of the six finds none.
    assert sorted(begun.steps.tolist()) == [3, 3, 6, 6, 9]
    refilled = np.tile(alone[0, :3], 4)
    longer = np.concatenate([refilled[:6], alone[0, :6]])
    by_place = [refilled, longer] if begun.places[4] == 0 else [longer, refilled]
    np.testing.assert_array_equal(rows, by_place)


def test_a_text_ends_before_its_end_token_even_if_that_comes_first():
    made = generator()
    state = made.begin(1)
    alone = np.full((1, 1), -1, np.int32)
    made.run(GeneratorState(*(array.copy() for array in state)), alone, samplers(1))
    rows = np.full((1, 4), -1, np.int32)
    own = GeneratorState(*(array.copy() for array in state))
    begun = made.run(own, rows, samplers(1), Refill(state, np.arange(7, dtype=np.uint32), 100, alone.item()))
    # Every text is empty, so all of them begin and end in the first step.
    assert begun.places.tolist() == [0] * 7
    assert begun.steps.tolist() == [0] * 7
    assert rows[0, 0] == alone.item()


def test_a_copy_of_a_generator_shares_its_memory_and_outlives_it():
    made = generator(3)
    copies = [copy.copy(made), copy.deepcopy(made)]
    rows = np.arange(6, dtype=np.int32)[None]
    wanted = made.begin(1)
    made.run(wanted, rows.copy())
    del made
    for other in copies:
        found = other.begin(1)
        other.run(found, rows.copy())
        np.testing.assert_array_equal(found.logits, wanted.logits)


WITHOUT_MEMORY = """
import resource, sys
import numpy as np
from tests.kernels.test_operations import generator

made = generator()
few, many = np.zeros((3, 50), np.int32), np.zeros((600_000, 2), np.int32)
wanted, states, many_states = made.begin(3), made.begin(3), made.begin(600_000)
made.run(wanted, few)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 1_000_000, resource.RLIM_INFINITY))
for _ in range(3):
    try:
        made.run(many_states, many)
    except MemoryError as error:
        assert "native kernels" in str(error)
    else:
        sys.exit("there was enough memory")
states = made.begin(3)
made.run(states, few)
assert (states.logits == wanted.logits).all()
print("usable")
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="only Linux reports a process's memory this way")
def test_out_of_memory_raises_and_the_next_call_succeeds():
    done = subprocess.run([sys.executable, "-c", WITHOUT_MEMORY], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "usable\n"), done.stderr
