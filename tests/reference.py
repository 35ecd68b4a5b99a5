"""Slow networks in float64 NumPy, implemented from the equations and independent of charloom's code."""

import jax
import numpy as np

from charloom.models import CELLS, Dense, LogitsHead


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


GATES = {"sigmoid": sigmoid, "hard_sigmoid": lambda x: np.minimum(np.maximum(0.2 * x + 0.5, 0), 1)}


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


CELL_ACTIVATIONS = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0), "softmax": softmax}


def lstm_step(projected, state, cell):
    """Returns h and c after one step of one layer for one text; gates are in the order i, f, g, o."""
    gate, activation = GATES[cell.gate_activation], CELL_ACTIVATIONS[cell.cell_activation]
    h, c = state
    i, f, g, o = np.split(projected + h @ cell.recurrent_kernel, 4)
    c = gate(f) * c + gate(i) * activation(g)
    return gate(o) * activation(c), c


def gru_step(projected, state, cell):
    """Returns h after one step; gates are in the order z, r, n. The reset gate scales the recurrent product."""
    gate, activation = GATES[cell.gate_activation], CELL_ACTIVATIONS[cell.cell_activation]
    (h,) = state
    pz, pr, pn = np.split(projected, 3)
    hz, hr, hn = np.split(h @ cell.recurrent_kernel + cell.recurrent_bias, 3)
    z = gate(pz + hz)
    return (z * h + (1 - z) * activation(pn + gate(pr + hr) * hn),)


def elman_step(projected, state, cell):
    return (CELL_ACTIVATIONS[cell.cell_activation](projected + state[0] @ cell.recurrent_kernel),)


def mingru_step(projected, state, cell):
    """Returns h after one step; gates are in the order z, n. Neither depends on the state, and n is linear."""
    pz, pn = np.split(projected, 2)
    z = GATES[cell.gate_activation](pz)
    return ((1 - z) * state[0] + z * pn,)


CELL_STEPS = {"lstm": lstm_step, "gru": gru_step, "elman": elman_step, "mingru": mingru_step}


class NumpyNetwork:
    """Computes the logits of a network for one text, step by step."""

    def __init__(self, network):
        self.network = jax.tree.map(lambda weight: np.asarray(weight, np.float64), network)
        self.zeros = [[np.zeros(cell.hidden) for _ in jax.tree.leaves(cell.zero_carry(1))] for cell in network.cells]
        self.reset()

    def reset(self):
        self.state = list(self.zeros)

    def input_of(self, token_id):
        """Returns the first layer's input for a token; zeros for None."""
        network = self.network
        size = network.cells[0].kernel.shape[0]
        if token_id is None:
            return np.zeros(size)
        if network.inputs == "embedding":
            return network.embedding[token_id]
        return np.eye(size)[token_id] if network.inputs == "one-hot" else np.array([token_id / network.vocab_size])

    def step(self, token_id):
        """Reads a token, or the start input for None, and returns the logits."""
        x = self.input_of(self.network.start_id if token_id is None else token_id)
        for index, cell in enumerate(self.network.cells):
            step_once = next(step for name, step in CELL_STEPS.items() if CELLS[name] is type(cell))
            self.state[index] = step_once(x @ cell.kernel + cell.bias, self.state[index], cell)
            x = self.state[index][0]
        head = self.network.head
        if isinstance(head, Dense):
            return x @ head.kernel + head.bias
        return x if isinstance(head, LogitsHead) else np.log(np.clip(x / x.sum(), 1e-7, 1 - 1e-7))

    def nats(self, token_ids):
        """Returns the nats of each token of a text that begins after the start input."""
        self.reset()
        costs, previous = [], None
        for token_id in token_ids:
            logits = self.step(previous)
            costs.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[token_id])
            previous = token_id
        return np.array(costs)
