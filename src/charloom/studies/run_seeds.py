"""Runs a small experiment with many seeds: all steps of four seeds are one call of a compiled program.

A tutorial shows one run, which may be lucky. The median and range of several runs show what to expect.
"""

import statistics
import time
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charloom.artifacts import make_folder
from charloom.kernels import compiled
from charloom.machine import available_cores
from charloom.models import Network
from charloom.studies.experiment import Experiment
from charloom.studies.resuming import MODEL_FILE
from charloom.studies.run_experiment import Figures, describe, score, step_rule
from charloom.studies.showcases import Sample, Trained, Walk
from charloom.studies.study_data import StudyData
from charloom.training import Event, Notice, TrainingState, block_steps, initial_state, root_key
from charloom.units import finite_or_none

# The weights of four seeds fit into a core's cache; those of eight do not. Groups are the same on every machine.
_SEEDS_TOGETHER = 4


def run_seeds(
    experiment: Experiment,
    published: Mapping[str, Any],
    seed: int,
    folder: Path,
) -> Generator[Event, None, Figures]:
    """Yields the run's events and returns its figures.

    Args:
        experiment: the experiment, with the changes for the mode of the run.
        published: its published figures.
        seed: the first of `experiment.seeds` seeds.
        folder: folder for the model of the first seed.
    """
    data = StudyData.of(experiment)
    seeds = range(seed, seed + experiment.seeds)
    steps = experiment.epochs * experiment.batching.steps_per_epoch(data.train)
    yield Notice(f"{steps:,} steps for each of {len(seeds)} seeds, {_SEEDS_TOGETHER} seeds per compiled call")
    groups = [seeds[first : first + _SEEDS_TOGETHER] for first in range(0, len(seeds), _SEEDS_TOGETHER)]
    begin = time.perf_counter()
    with ThreadPoolExecutor(max_workers=available_cores()) as pool:
        trained_groups = list(pool.map(partial(_train, experiment, data), groups))
    seconds = time.perf_counter() - begin
    networks = [network for group in trained_groups for network in group[0]]
    losses_of_seeds = np.concatenate([group[1] for group in trained_groups])
    accuracies = [
        score(network, experiment, data.train, one).accuracy for network, one in zip(networks, seeds, strict=True)
    ]
    losses = np.median(losses_of_seeds, axis=0)
    trained = [
        Trained(network, data.vocabulary, experiment, published=published, trained_on=data.trained_on, seed=one)
        for network, one in zip(networks, seeds, strict=True)
    ]
    make_folder(folder)
    trained[0].text_model.save(folder / MODEL_FILE)
    return describe(experiment, data, networks[0], seed) | {
        "losses": [finite_or_none(loss) for loss in losses.tolist()],
        "accuracy": statistics.median(accuracies),
        "accuracy_range": [min(accuracies), max(accuracies)],
        "accuracy_of_seeds": accuracies,
        # The time for all seeds, including compilation.
        "seconds_per_epoch": seconds / experiment.epochs,
        "training_seconds": seconds,
        "seeds": len(seeds),
        "samples": _samples(experiment, trained),
    }


def _train(experiment: Experiment, data: StudyData, seeds: range) -> tuple[list[Network], np.ndarray]:
    """Returns the networks of `seeds` after all steps, and the loss of each epoch, one row per seed."""
    rule = step_rule(experiment)
    steps = experiment.epochs * experiment.batching.steps_per_epoch(data.train)
    states = [_initial(experiment, data, seed) for seed in seeds]
    blocks = [experiment.batching.producer(data.train, seed).block(0, steps, steps) for seed in seeds]
    rates = np.repeat(
        np.array([phase.learning_rate for phase in experiment.phases], np.float32),
        [phase.epochs * steps // experiment.epochs for phase in experiment.phases],
    )
    state, totals = _block_of_seeds(
        jax.tree.map(lambda *leaves: np.stack(leaves), *states),
        *(np.stack([getattr(block, name) for block in blocks]) for name in _BLOCK_ARRAYS),
        rates,
        steps,
        0,
        root_key(0),  # for dropout, which these experiments do not use
        rule=rule,
    )
    # Through NumPy, because JAX would compile a program for each shape.
    stacked = jax.tree.map(np.asarray, state.network)
    networks = [jax.tree.map(lambda leaf, row=row: jnp.asarray(leaf[row]), stacked) for row in range(len(seeds))]
    nats, characters = np.asarray(totals.nats, dtype=np.float64), np.stack([block.scored for block in blocks])
    of_epochs = (len(seeds), experiment.epochs, -1)
    return networks, nats.reshape(of_epochs).sum(axis=2) / characters.reshape(of_epochs).sum(axis=2)


_BLOCK_ARRAYS = ("token_ids", "resets", "scored", "state_resets")


@partial(compiled, static_argnames="rule")
def _block_of_seeds(states: TrainingState, *arguments: Any, rule: Any) -> Any:
    each, shared = (0,) * (1 + len(_BLOCK_ARRAYS)), (None,) * 4
    return jax.vmap(partial(block_steps, rule=rule), in_axes=each + shared)(states, *arguments)


def _initial(experiment: Experiment, data: StudyData, seed: int) -> TrainingState:
    network = experiment.initial(data.vocabulary, np.random.default_rng(seed))
    return initial_state(network, experiment.batching.batch_size, step_rule(experiment))


def _samples(experiment: Experiment, trained: list[Trained]) -> list[Sample]:
    """Returns the samples of the first seed; for a walk, also the letters and the successes of all seeds."""
    samples = []
    for show in experiment.showcases:
        shown = show(trained[0])
        if isinstance(show, Walk):
            walks = [show(one)[0] for one in trained]
            right = sum(walk["right"] for walk in walks)
            shown[0] |= {
                "note": f"correct for {right} of {len(walks)} seeds",
                "text_of_seeds": [walk["text"] for walk in walks],
            }
        samples += shown
    return samples
