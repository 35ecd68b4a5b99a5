"""A slow LSTM network in float64 NumPy, written from the equations and not from charloom's code."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step(x, h, c, kernel, recurrent_kernel, bias):
    """One step of one layer for one stream; gates in the order i, f, g, o."""
    pre = x @ kernel + h @ recurrent_kernel + bias
    i, f, g, o = np.split(pre, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


class NumpyNetwork:
    """Logits of a network for one stream, a step at a time."""

    def __init__(self, network):
        self.embedding = np.asarray(network.embedding, np.float64)
        self.layers = [
            [np.asarray(w, np.float64) for w in (cell.kernel, cell.recurrent_kernel, cell.bias)]
            for cell in network.cells
        ]
        self.head = [np.asarray(w, np.float64) for w in (network.head.kernel, network.head.bias)]
        self.start_id = network.start_id
        self.reset()

    def reset(self):
        self.state = [(np.zeros(len(u)), np.zeros(len(u))) for _, u, _ in self.layers]

    def step(self, token_id):
        """Reads a token, or the start input for None; returns logits."""
        if token_id is None:
            token_id = self.start_id
        x = np.zeros(self.embedding.shape[1]) if token_id is None else self.embedding[token_id]
        for index, weights in enumerate(self.layers):
            self.state[index] = lstm_step(x, *self.state[index], *weights)
            x = self.state[index][0]
        return x @ self.head[0] + self.head[1]

    def nats(self, token_ids):
        """The nats that each token of a text costs, which begins after the start input."""
        self.reset()
        costs, previous = [], None
        for token_id in token_ids:
            logits = self.step(previous)
            costs.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[token_id])
            previous = token_id
        return np.array(costs)
