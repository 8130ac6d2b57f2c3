"""What the paper found on models of 7B, as variants to run on others: the order of training, the batch, the place.

The order and the batch are compared at one place, places with one recipe. With equal epochs a small batch makes more
steps; with equal steps, as many as there are rows, a batch of B takes B epochs.
"""

from __future__ import annotations

from benchmarks.rivals.roster import EDITS_ALONE, ONE_DOWN, PAPER_RECIPE, Place, Rival, Values, steps

BATCHES = (1, 20, 100)
EPOCHS = 25  # the paper's
MODULES = ("block", "attention", "mlp", "up", "down")  # the paper's grid
EVERY = 3  # of layers
STEPS = steps(5e-4, "auto")
FULL_LENGTH: Values = {**PAPER_RECIPE, "training.stop_loss": 0.0}  # so that epochs and steps are as told


def findings(layers: int) -> tuple[Rival, ...]:
    """The variants for a model of so many layers."""
    return (*_orders(), *_batches(), *_places(layers))


def _orders() -> list[Rival]:
    """One edit after the other, and epochs over all of them."""
    depth: Values = {**EDITS_ALONE, "training.method": "depth-first", "training.epochs": EPOCHS}
    return [
        Rival("depth-first", "depth-first, batch 1", depth, ONE_DOWN, STEPS),
        Rival("breadth-first", "breadth-first, batch 100", PAPER_RECIPE, ONE_DOWN, STEPS),
    ]


def _batches() -> list[Rival]:
    found = []
    for batch in BATCHES:
        for kind, epochs in (("epochs", EPOCHS), ("steps", batch)):
            values = {**FULL_LENGTH, "training.batch_size": batch, "training.epochs": epochs}
            found.append(Rival(f"batch-{batch}-{kind}", f"batch {batch}, equal {kind}", values, ONE_DOWN, STEPS))
    return found


def _places(layers: int) -> list[Rival]:
    """The recipe with the step size found by itself and the batch that follows the size of the set."""
    values = {**PAPER_RECIPE, "training.learning_rate": "auto", "training.batch_size": None}
    return [
        Rival(f"place-{layer}-{module}", f"layer {layer}, {module}", values, Place((layer + 0.5) / layers, module))
        for layer in range(0, layers, EVERY)
        for module in MODULES
    ]
