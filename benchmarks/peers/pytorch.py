"""PyTorch: `nn.LSTM`, `nn.GRU` and `nn.RNN` with fused Adam, and a step loop for sampling, on the CPU or `DEVICE`."""

import json
import os
import resource
import statistics
import sys
import time
from typing import Any

import torch
from torch import nn

from benchmarks.workers import memory_bytes, random_ids
from benchmarks.workloads import CHARACTERS, EMBEDDING, VOCABULARY

IMPORTED = memory_bytes()
DEVICE = os.environ.get("DEVICE", "cpu")
AHEAD = 64  # steps or characters that may be queued on the device
LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "elman": nn.RNN}


def wait() -> None:
    """Waits until the device has finished its queue."""
    if DEVICE != "cpu":
        torch.cuda.synchronize()


class Model(nn.Module):
    """Embedding, recurrent layers and head. Time comes first, which is the faster order."""

    def __init__(self, cell: str, layers: int, hidden: int):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, EMBEDDING)
        self.layers = LAYERS[cell](EMBEDDING, hidden, layers)
        self.head = nn.Linear(hidden, VOCABULARY)

    def forward(self, ids: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        outputs, state = self.layers(self.embedding(ids), state)
        return self.head(outputs), state


def train(
    seconds: float, cell: str, layers: int, hidden: int, batch_size: int, sequence_length: int
) -> dict[str, float]:
    """Trains on rows that follow the text and carry their state."""
    begin = time.perf_counter()
    model = Model(cell, layers, hidden).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)
    columns = (
        torch.from_numpy(random_ids(CHARACTERS // batch_size * batch_size, VOCABULARY))
        .long()
        .view(batch_size, -1)
        .T.contiguous()
    ).to(DEVICE)
    state: Any = None
    steps = 0

    def step() -> None:
        nonlocal state, steps
        first = steps * sequence_length % (len(columns) - sequence_length - 1)
        logits, state = model(columns[first : first + sequence_length], state)
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), columns[first + 1 : first + sequence_length + 1].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = tuple(one.detach() for one in state) if cell == "lstm" else state.detach()
        steps += 1

    step()
    warm = time.perf_counter()
    step()
    wait()
    steps, timed = 0, time.perf_counter()
    while time.perf_counter() - timed < seconds:
        step()
        if steps % AHEAD == 0:
            wait()
    wait()
    elapsed = time.perf_counter() - timed
    return {
        "chars_per_second": steps * batch_size * sequence_length / elapsed,
        "compile_seconds": warm - begin,
        "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - IMPORTED,
    }


def generate(seconds: float, hidden: int, streams: int) -> dict[str, float]:
    """Samples with a temperature, one network step per character of all streams."""
    model = Model("lstm", 1, hidden).to(DEVICE).eval()
    with torch.inference_mode():
        ids = torch.zeros(1, streams, dtype=torch.long, device=DEVICE)
        state: Any = None
        for warm in (True, False):
            steps, begin = 0, time.perf_counter()
            while time.perf_counter() - begin < (0.3 if warm else seconds):
                logits, state = model(ids, state)
                chances = torch.softmax(logits[0] / 0.8, dim=-1)
                ids = torch.multinomial(chances, 1).view(1, streams)
                steps += 1
                if steps % AHEAD == 0:
                    wait()
            wait()
            elapsed = time.perf_counter() - begin
    return {"chars_per_second": steps * streams / elapsed}


def matrix(size: int = 4096, rounds: int = 5) -> dict[str, float]:
    """Multiplies two large matrices."""
    one, other = torch.rand(size, size), torch.rand(size, size)
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        one @ other
        times.append(time.perf_counter() - begin)
    return {"gflops": 2 * size**3 / statistics.median(times) / 1e9}


if __name__ == "__main__":
    from charloom.machine import available_cores

    torch.set_num_threads(available_cores())
    torch.manual_seed(0)
    print(json.dumps({"train": train, "generate": generate, "matrix": matrix}[sys.argv[1]](**json.loads(sys.argv[2]))))
