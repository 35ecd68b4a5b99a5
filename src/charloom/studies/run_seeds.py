"""A small rung with many seeds: every update of all of them in one compiled program.

A tutorial shows one lucky run; the median of several and their range say what to expect.
"""

import statistics
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from charloom.artifacts import make_folder
from charloom.machine import available_cores
from charloom.models import Network
from charloom.studies.demonstrations import Sample, Trained, Walk
from charloom.studies.run_rung import MODEL_FILE, Figures, Prepared, describe, score, update_rule
from charloom.studies.rung import Rung
from charloom.training import Event, Notice, TrainingState, block_updates, initial_state, root_key
from charloom.units import finite_or_none

# Four seeds' weights stay in a core's cache, eight do not. The groups share the cores, and are the same on any machine.
_SEEDS_TOGETHER = 4


def run_seeds(
    rung: Rung,
    published: Mapping[str, Any],
    seed: int,
    folder: Path,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, Figures | None]:
    """Yields the run's events and returns its figures; None where `should_stop` was true at the end.

    Args:
        rung: the experiment, already cut.
        published: what was published of it.
        seed: the first of `rung.seeds` seeds.
        folder: for the first seed's model.
        should_stop: is asked once.
    """
    prepared = Prepared.of(rung)
    seeds = range(seed, seed + rung.seeds)
    updates = rung.epochs * rung.framing.updates_an_epoch(prepared.train)
    yield Notice(f"{updates:,} updates of {len(seeds)} seeds, in one compiled call for {_SEEDS_TOGETHER} of them")
    groups = [seeds[first : first + _SEEDS_TOGETHER] for first in range(0, len(seeds), _SEEDS_TOGETHER)]
    begin = time.perf_counter()
    with ThreadPoolExecutor(max_workers=available_cores()) as pool:
        trained_groups = list(pool.map(partial(_train, rung, prepared), groups))
    seconds = time.perf_counter() - begin
    if should_stop():
        return None

    networks = [network for group in trained_groups for network in group[0]]
    nats = np.concatenate([group[1] for group in trained_groups])
    accuracies = [
        score(network, rung, prepared.train, one).accuracy for network, one in zip(networks, seeds, strict=True)
    ]
    losses = np.median(nats.reshape(len(seeds), rung.epochs, -1).mean(axis=2), axis=0)
    trained = [
        Trained(network, prepared.vocabulary, rung, published, one)
        for network, one in zip(networks, seeds, strict=True)
    ]
    make_folder(folder)
    trained[0].text_model.save(folder / MODEL_FILE)
    return describe(rung, prepared, networks[0]) | {
        "losses": [finite_or_none(loss) for loss in losses.tolist()],
        "accuracy": statistics.median(accuracies),
        "accuracy_range": [min(accuracies), max(accuracies)],
        "accuracy_of_seeds": accuracies,
        # All seeds together, compilation among it.
        "seconds_per_epoch": seconds / rung.epochs,
        "training_seconds": seconds,
        "seed": seed,
        "seeds": len(seeds),
        "samples": _samples(rung, trained),
    }


def _train(rung: Rung, prepared: Prepared, seeds: range) -> tuple[list[Network], np.ndarray]:
    """Returns the networks of `seeds` after all updates, and the nats of each update, a row a seed."""
    rule = update_rule(rung)
    updates = rung.epochs * rung.framing.updates_an_epoch(prepared.train)
    states = [_initial(rung, prepared, seed) for seed in seeds]
    blocks = [rung.framing.producer(prepared.train, seed).block(0, updates, updates) for seed in seeds]
    rates = np.repeat(
        np.array([phase.learning_rate for phase in rung.phases], np.float32),
        [phase.epochs * updates // rung.epochs for phase in rung.phases],
    )
    state, totals = _block_of_seeds(
        jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *states),
        *(np.stack([getattr(block, name) for block in blocks]) for name in _BLOCK_ARRAYS),
        rates,
        updates,
        0,
        jax.random.key(0),  # of dropout, of which there is none
        rule=rule,
    )
    networks = [jax.tree.map(lambda leaf, row=row: leaf[row], state.network) for row in range(len(seeds))]
    return networks, np.asarray(totals.nats, dtype=np.float64)


_BLOCK_ARRAYS = ("token_ids", "resets", "scored", "cold")


@partial(jax.jit, static_argnames="rule")
def _block_of_seeds(states: TrainingState, *arguments: Any, rule: Any) -> Any:
    each, shared = (0,) * (1 + len(_BLOCK_ARRAYS)), (None,) * 4
    return jax.vmap(partial(block_updates, rule=rule), in_axes=each + shared)(states, *arguments)


def _initial(rung: Rung, prepared: Prepared, seed: int) -> TrainingState:
    init_key, _ = jax.random.split(root_key(seed))
    return initial_state(rung.initial(prepared.vocabulary, init_key), rung.framing.lanes, update_rule(rung))


def _samples(rung: Rung, trained: list[Trained]) -> list[Sample]:
    """Returns the first seed's samples; of a walk also how many seeds went it right, and what each said."""
    samples = []
    for show in rung.demonstrations:
        shown = show(trained[0])
        if isinstance(show, Walk):
            walks = [show(one)[0] for one in trained]
            right = sum(walk["right"] for walk in walks)
            shown[0] |= {
                "note": f"right in {right} of {len(walks)} seeds",
                "text_of_seeds": [walk["text"] for walk in walks],
            }
        samples += shown
    return samples
