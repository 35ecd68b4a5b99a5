"""PyTorch on the CPU or `DEVICE`: `nn.LSTM`, `nn.GRU` and `nn.RNN` with fused Adam, and a step loop for sampling.

`PRECISION` is float32, bfloat16 (training with autocast) or int8 (dynamic quantization; not for training). `COMPILED=1`
adds `torch.compile`. It needs a C++ compiler.
"""

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from benchmarks.texts import line_batches, random_ids, random_lines
from benchmarks.workers import DOES_NOT_WORK, Figures, memory_bytes, with_best_threads
from benchmarks.workloads import CHARACTERS, EMBEDDING, TEMPERATURE, VOCABULARY

IMPORTED = memory_bytes()
DEVICE = os.environ.get("DEVICE", "cpu")
PRECISION = os.environ.get("PRECISION", "float32")
COMPILED = "COMPILED" in os.environ
DTYPE = torch.bfloat16 if PRECISION == "bfloat16" else torch.float32
AHEAD = 64  # steps or characters that may be queued on the device
WARM_STEPS, WARM_BATCHES = 5, 3
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


def train(seconds: float, cell: str, layers: int, hidden: int, batch_size: int, sequence_length: int) -> Figures:
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
    state = _zero_state(cell, layers, batch_size, hidden)
    steps = 0

    # It leaves the layers to `nn.LSTM`: unrolled and compiled, they are slower and take minutes to compile.
    def loss_of(ids: torch.Tensor, targets: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=PRECISION == "bfloat16"):
            logits, state = model(ids, state)
            return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()), state

    run = torch.compile(loss_of) if COMPILED else loss_of

    def step() -> None:
        nonlocal state, steps
        first = steps * sequence_length % (len(columns) - sequence_length - 1)
        loss, state = run(
            columns[first : first + sequence_length], columns[first + 1 : first + sequence_length + 1], state
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = tuple(one.detach() for one in state) if cell == "lstm" else state.detach()
        steps += 1

    step()
    warm = time.perf_counter()
    for _ in range(WARM_STEPS):
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


def generate(seconds: float, hidden: int, streams: int) -> Figures:
    """Samples with a temperature, one network step per character of all streams."""
    model = _inference_model(hidden)

    def step(ids: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        logits, state = model(ids, state)
        chances = torch.softmax(logits[0].float() / TEMPERATURE, dim=-1)
        return torch.multinomial(chances, 1).view(1, streams), state

    run = torch.compile(step) if COMPILED else step

    @torch.inference_mode()
    def measure(threads: int) -> float:
        torch.set_num_threads(threads)
        ids = torch.zeros(1, streams, dtype=torch.long, device=DEVICE)
        state = _zero_state("lstm", 1, streams, hidden)
        for shortest, most in ((WARM_STEPS, 0.3), (0, seconds)):
            steps, begin = 0, time.perf_counter()
            while steps < shortest or time.perf_counter() - begin < most:
                ids, state = run(ids, state)
                steps += 1
                if steps % AHEAD == 0:
                    wait()
            wait()
            elapsed = time.perf_counter() - begin
        return steps * streams / elapsed

    return with_best_threads(measure)


def score(seconds: float, hidden: int, lines: int) -> Figures:
    """Scores batches of lines of similar lengths."""
    texts = random_lines(lines, VOCABULARY)
    characters = sum(map(len, texts))
    batches = [tuple(torch.from_numpy(array).to(DEVICE) for array in batch) for batch in line_batches(texts)]
    model = _inference_model(hidden)

    def score_all(batches: Iterable[tuple[torch.Tensor, ...]]) -> None:
        for inputs, targets, scored in batches:
            logits, _ = model(inputs, _zero_state("lstm", 1, inputs.shape[1], hidden))
            nats = nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten().long(), reduction="none")
            (nats.view_as(scored) * scored).sum(0).tolist()

    @torch.inference_mode()
    def measure(threads: int) -> float:
        torch.set_num_threads(threads)
        score_all(batches[-WARM_BATCHES:])
        passes, begin = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds:
            score_all(batches)
            passes += 1
        return passes * characters / elapsed

    return with_best_threads(measure)


def matrix(size: int = 4096, rounds: int = 5) -> Figures:
    """Multiplies two large matrices."""
    one, other = torch.rand(size, size, dtype=DTYPE), torch.rand(size, size, dtype=DTYPE)
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        one @ other
        times.append(time.perf_counter() - begin)
    return {"gflops": 2 * size**3 / statistics.median(times) / 1e9}


def _inference_model(hidden: int) -> nn.Module:
    model = Model("lstm", 1, hidden).to(DEVICE, DTYPE).eval()
    if PRECISION == "int8":
        return torch.ao.quantization.quantize_dynamic(model, {nn.LSTM, nn.Linear}, torch.qint8)
    return model


def _zero_state(cell: str, layers: int, rows: int, hidden: int) -> Any:
    zeros = torch.zeros(layers, rows, hidden, dtype=DTYPE, device=DEVICE)
    return (zeros, zeros.clone()) if cell == "lstm" else zeros


def main() -> None:
    """Prints the figures of a task, or why it does not work with this precision or with `torch.compile`."""
    from charloom.machine import available_cores

    torch.set_num_threads(available_cores())
    torch.manual_seed(0)
    tasks = {"train": train, "generate": generate, "score": score, "matrix": matrix}
    task = tasks[sys.argv[1]]
    if COMPILED:
        # A single step is worth compiling as a whole, with the layer.
        torch._dynamo.config.allow_rnn = task is generate
    try:
        figures = task(**json.loads(sys.argv[2]))
    except Exception as problem:
        if PRECISION == "float32" and not COMPILED:
            raise
        reason, *_ = f"{type(problem).__name__}: {problem}".splitlines()
        figures = {DOES_NOT_WORK: reason}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
