"""The table of facts agrees with the cells' classes and with the native operations, for every cell."""

from typing import get_args

import jax
import numpy as np
import pytest

from charloom.cell_facts import CELL_FACTS, CellName
from charloom.errors import SettingError
from charloom.kernels.operations import HANDLERS
from charloom.models import CELLS, CellWithRecurrentKernel, named_tensors
from charloom.settings import NetworkSettings
from tests.reference import CELL_STEPS

every_cell = pytest.mark.parametrize("name", CELL_FACTS)


def test_every_cell_has_a_name_a_class_and_equations():
    assert get_args(CellName) == tuple(CELL_FACTS)
    assert set(CELLS) == set(CELL_FACTS) == set(CELL_STEPS)
    for name, kind in CELLS.items():
        assert kind.facts is CELL_FACTS[name]
        assert kind.facts.name == name


@every_cell
def test_facts_agree_with_the_weights(name):
    facts = CELL_FACTS[name]
    cell = CELLS[name].init(5, 7, np.random.default_rng(0))
    assert cell.hidden == 7
    shapes = {"kernel": (5, 7 * facts.gate_count), "bias": (7 * facts.gate_count,)}
    if facts.has_recurrent_kernel:
        shapes["recurrent_kernel"] = (7, 7 * facts.gate_count)
    if facts.has_recurrent_bias:
        shapes["recurrent_bias"] = (7 * facts.gate_count,)
    assert {tensor: array.shape for tensor, array in named_tensors(cell).items()} == shapes
    assert isinstance(cell, CellWithRecurrentKernel) == facts.has_recurrent_kernel


@every_cell
def test_facts_agree_with_the_carry(name):
    facts = CELL_FACTS[name]
    cell = CELLS[name].init(5, 7, np.random.default_rng(0))
    states = jax.tree.leaves(cell.zero_carry(3))
    assert [state.shape for state in states] == [(3, 7)] * len(facts.states)
    inputs = np.ones((3, 7 * facts.gate_count), np.float32)
    output, carry = cell.step(jax.numpy.asarray(inputs), cell.zero_carry(3))
    np.testing.assert_array_equal(output, jax.tree.leaves(carry)[0])  # the first state is the output
    if len(facts.states) > 1:
        assert carry._fields == facts.states


@every_cell
def test_activations_apply_where_the_facts_say_so(name):
    def outputs(**activations):
        cell = CELLS[name].init(5, 7, np.random.default_rng(0), **activations)
        projected = np.random.default_rng(1).normal(size=(3, 7 * cell.facts.gate_count)).astype(np.float32)
        return np.asarray(cell.step(jax.numpy.asarray(projected), cell.zero_carry(3))[0])

    facts, usual = CELL_FACTS[name], outputs()
    for setting, value, applies in (
        ("gate_activation", "hard_sigmoid", facts.has_gate_activation),
        ("cell_activation", "relu", facts.has_cell_activation),
    ):
        assert np.array_equal(outputs(**{setting: value}), usual) != applies
        if applies:
            NetworkSettings(cell=name, **{setting: value})
        else:
            with pytest.raises(SettingError, match=f"{setting} applies to cells with .*{name}"):
                NetworkSettings(cell=name, **{setting: value})


def test_the_last_activation_of_a_linear_cell_is_refused():
    with pytest.raises(SettingError, match="last_cell_activation applies to cells with an activation"):
        NetworkSettings(cell="mingru", last_cell_activation="softmax")


def test_native_cells_are_numbered_and_have_both_passes():
    native = [facts for facts in CELL_FACTS.values() if facts.native_id is not None]
    assert [facts.native_id for facts in native] == [0, 1, 2]
    wanted = {f"{facts.name}_{direction}" for facts in native for direction in ("forward", "backward")}
    assert {handler for handler in HANDLERS if not handler.startswith("dense")} == wanted


def test_the_cost_is_the_number_of_weights_that_are_multiplied():
    assert CELL_FACTS["lstm"].cost(hidden=10, layers=3) == 4 * 10 * 10 * (3 + 2)
    assert CELL_FACTS["gru"].cost(hidden=10, layers=1) == 3 * 10 * 10
    # A minGRU has no recurrent product, so the work per unit counts as well.
    one, three = (CELL_FACTS["mingru"].cost(hidden=10, layers=layers) for layers in (1, 3))
    assert three - 3 * one == 2 * 10 * 10 * 2
    assert one == 10 * CELL_FACTS["mingru"].elementwise_cost > 0
