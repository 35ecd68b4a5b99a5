"""ONNX Runtime on the CPU: a graph of its LSTM, in float32 or, with `PRECISION=int8`, with quantized weights."""

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, save
from onnxruntime.quantization import quantize_dynamic

from benchmarks.texts import LineBatch, line_batches, random_lines
from benchmarks.workers import Figures, with_best_threads
from benchmarks.workloads import EMBEDDING, TEMPERATURE, VOCABULARY

PRECISION = os.environ.get("PRECISION", "float32")
WARM_STEPS, WARM_BATCHES = 20, 3
OPSET, FILE_VERSION = 17, 8
logging.disable(logging.WARNING)  # a hint about models with convolutions


def generate(seconds: float, hidden: int, streams: int) -> Figures:
    """Samples with a temperature, one run of the graph per character of all streams."""
    graph = _sampling_graph(hidden)
    zeros = np.zeros((1, streams, hidden), np.float32)

    def measure(threads: int) -> float:
        session = _session(graph, threads)
        # Two sets of arrays take turns as inputs and outputs, so that nothing is copied.
        sets = [
            [
                onnxruntime.OrtValue.ortvalue_from_numpy(array)
                for array in (np.zeros((1, streams), np.int32), zeros, zeros)
            ]
            for _ in range(2)
        ]
        bindings = []
        for inputs, outputs in (sets, reversed(sets)):
            binding = session.io_binding()
            for name, array in zip(("ids", "hidden", "cell"), inputs, strict=True):
                binding.bind_ortvalue_input(name, array)
            for name, array in zip(("next_ids", "next_hidden", "next_cell"), outputs, strict=True):
                binding.bind_ortvalue_output(name, array)
            bindings.append(binding)
        for step in range(WARM_STEPS):
            session.run_with_iobinding(bindings[step % 2])
        steps, begin = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds:
            session.run_with_iobinding(bindings[steps % 2])
            steps += 1
        return steps * streams / elapsed

    return with_best_threads(measure)


def score(seconds: float, hidden: int, lines: int) -> Figures:
    """Scores batches of lines of similar lengths."""
    texts = random_lines(lines, VOCABULARY)
    characters, batches = sum(map(len, texts)), line_batches(texts)
    graph = _scoring_graph(hidden)

    def measure(threads: int) -> float:
        session = _session(graph, threads)

        def score_all(batches: Iterable[LineBatch]) -> None:
            for batch in batches:
                session.run(None, batch._asdict())

        score_all(batches[-WARM_BATCHES:])
        passes, begin = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds:
            score_all(batches)
            passes += 1
        return passes * characters / elapsed

    return with_best_threads(measure)


def _session(model: ModelProto, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float32.onnx"
        save(model, path)
        if PRECISION == "int8":
            source, path = path, Path(folder) / "int8.onnx"
            quantize_dynamic(source, path, op_types_to_quantize=["LSTM", "MatMul"])
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _sampling_graph(hidden: int) -> ModelProto:
    nodes = [
        helper.make_node("Gather", ["embedding", "ids"], ["embedded"]),
        _lstm(["hidden", "cell"], ["", "next_hidden", "next_cell"], hidden),
        helper.make_node("Squeeze", ["next_hidden", "first_axis"], ["top"]),
        *_head("top"),
        helper.make_node("Div", ["logits", "temperature"], ["scaled"]),
        helper.make_node("Multinomial", ["scaled"], ["drawn"], sample_size=1, dtype=TensorProto.INT32),
        helper.make_node("Transpose", ["drawn"], ["next_ids"], perm=[1, 0]),
    ]
    states = {name: (TensorProto.FLOAT, [1, "streams", hidden]) for name in ("hidden", "cell")}
    inputs = {"ids": (TensorProto.INT32, [1, "streams"]), **states}
    return _model(nodes, hidden, inputs, {f"next_{name}": kind for name, kind in inputs.items()})


def _scoring_graph(hidden: int) -> ModelProto:
    nodes = [
        helper.make_node("Gather", ["embedding", "inputs"], ["embedded"]),
        _lstm([], ["outputs"], hidden),
        helper.make_node("Squeeze", ["outputs", "second_axis"], ["top"]),
        *_head("top"),
        helper.make_node("LogSoftmax", ["logits"], ["log_probs"], axis=-1),
        helper.make_node("Unsqueeze", ["targets", "last_axis"], ["places"]),
        helper.make_node("GatherElements", ["log_probs", "places"], ["of_targets"], axis=-1),
        helper.make_node("Squeeze", ["of_targets", "last_axis"], ["squeezed"]),
        helper.make_node("Mul", ["squeezed", "scored"], ["of_lines"]),
        helper.make_node("ReduceSum", ["of_lines", "first_axis"], ["scores"], keepdims=0),
    ]
    kinds = {"inputs": TensorProto.INT32, "targets": TensorProto.INT32, "scored": TensorProto.FLOAT}
    inputs = {name: (kind, ["time", "lines"]) for name, kind in kinds.items()}
    return _model(nodes, hidden, inputs, {"scores": (TensorProto.FLOAT, ["lines"])})


def _lstm(states: list[str], outputs: list[str], hidden: int) -> NodeProto:
    weights = ["kernel", "recurrent_kernel", "lstm_bias"]
    return helper.make_node("LSTM", ["embedded", *weights, "", *states], outputs, hidden_size=hidden)


def _head(inputs: str) -> list[NodeProto]:
    return [
        helper.make_node("MatMul", [inputs, "head"], ["products"]),
        helper.make_node("Add", ["products", "head_bias"], ["logits"]),
    ]


def _model(nodes: list[NodeProto], hidden: int, inputs: dict, outputs: dict) -> ModelProto:
    """Returns a model with random weights. ONNX keeps the gates as rows."""
    rng = np.random.default_rng(0)
    shapes = {
        "embedding": (VOCABULARY, EMBEDDING),
        "kernel": (1, 4 * hidden, EMBEDDING),
        "recurrent_kernel": (1, 4 * hidden, hidden),
        "lstm_bias": (1, 8 * hidden),
        "head": (hidden, VOCABULARY),
        "head_bias": (VOCABULARY,),
    }
    arrays = {name: rng.uniform(-1, 1, shape).astype(np.float32) / hidden**0.5 for name, shape in shapes.items()}
    axes = {"first_axis": [0], "second_axis": [1], "last_axis": [-1]}
    arrays |= {name: np.array(axis, np.int64) for name, axis in axes.items()}
    arrays["temperature"] = np.array(TEMPERATURE, np.float32)
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in arrays.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FILE_VERSION)


if __name__ == "__main__":
    print(json.dumps({"generate": generate, "score": score}[sys.argv[1]](**json.loads(sys.argv[2]))))
