"""Heads trained at once are the heads that plain Keras trains one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from humeris.classify.data.feature_matrix import FeatureMatrix
from humeris.classify.heads.head import Head
from humeris.classify.heads.neural import mixup
from humeris.classify.heads.neural.optimizers import RAdam, Ranger
from humeris.classify.heads.neural.parallel_mlp import MLPTraining, ParallelMLP
from humeris.classify.heads.registry import get_head_family
from humeris.extract.backbones.keras_runtime import load_keras

mlp = get_head_family("mlp")

keras = load_keras()
SEED, CLASSES, EPOCHS = 4, 3, 3
MAP = (3, 4, 2)
SMALL: dict[str, Any] = {"hidden": 8, "batch_size": 16, "epochs": EPOCHS, "dropout": 0, "learning_rate": 0.02}


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (75, 3, 4, 2) of three classes, labels, and 60 rows to learn from, which is no multiple of 16."""
    generator = np.random.default_rng(5)
    labels = generator.integers(CLASSES, size=75)
    centres = generator.normal(size=(CLASSES, *MAP))
    features = (centres[labels] + generator.normal(size=(75, *MAP))) * 3 + 1
    return features.astype(np.float32), labels, generator.permutation(75)[:60]


def stack_of(*options: dict[str, Any]) -> ParallelMLP:
    features, labels, _ = data()
    settings = [mlp.expand_grid({**SMALL, **each})[0] for each in options]
    return ParallelMLP(FeatureMatrix.from_array(features), labels, CLASSES, settings, SEED)


def trained(stack: ParallelMLP, epochs: int = EPOCHS) -> MLPTraining:
    training = stack.start_training(data()[2])
    for _ in range(epochs):
        stack.train_epoch(training)
    return training


def answers(stack: ParallelMLP, epochs: int = EPOCHS) -> np.ndarray:
    return stack.predict(trained(stack, epochs), np.arange(75))


def plain(stack: ParallelMLP, setting: dict[str, Any]) -> np.ndarray:
    """Answers of a Keras model with the same initial weights, fitted to the same batches, which are mixed beforehand."""
    features, labels, learnt = data()
    rows = StandardScaler().fit(features[learnt].reshape(60, -1)).transform(features.reshape(75, -1))
    sizes = [int(size) for size in str(setting["hidden"]).split("x")]
    values = image = keras.Input(rows.shape[1:])
    masks = [keras.Input((size,)) for size in sizes]
    if setting["batch_norm"]:
        values = keras.layers.BatchNormalization(center=False, scale=False)(values)
    for size, mask in zip(sizes, masks, strict=True):
        values = keras.layers.Dense(size, activation=setting["activation"])(values)
        values = keras.layers.Multiply()([values, mask])
    model = keras.Model([image, *masks], keras.layers.Dense(CLASSES, activation="softmax")(values))
    fresh = stack.start_training(learnt)
    start = [(layer.weights, layer.bias) for layer in _unscaled(stack, fresh)]
    for layer, weights in zip([each for each in model.layers if isinstance(each, keras.layers.Dense)], start, strict=True):
        layer.set_weights(weights)
    steps = 4 * setting["epochs"]
    rate = setting["learning_rate"]
    if setting["schedule"] == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    kinds = {
        "sgd": lambda **more: keras.optimizers.SGD(momentum=0.9, nesterov=True, **more),
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "radam": RAdam,
        "ranger": Ranger,
    }
    optimizer = kinds[setting["optimizer"]](learning_rate=rate, weight_decay=setting["weight_decay"])
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(label_smoothing=setting["label_smoothing"]))
    order, noise, mix = (np.random.default_rng([SEED, stream]) for stream in range(3))
    for _ in range(EPOCHS):
        shuffled = learnt[order.permutation(60)]
        mixes = mixup.draw_mixes([setting], MAP, 4, mix.integers(2**31, size=2).tolist())
        batches, targets, kept = [], [], []
        for number in range(4):
            chosen = shuffled[16 * number : 16 * number + 16]
            batch, target = mixes[number].apply_cutmix(rows[chosen], MAP), np.eye(CLASSES)[labels[chosen]]
            row, label = mixes[number].row_shares[0], mixes[number].label_shares[0]
            batches.append(row * batch + (1 - row) * batch[::-1])
            targets.append(label * target + (1 - label) * target[::-1])
            drawn = [noise.random((len(chosen), size), np.float32) for size in sizes] if setting["dropout"] else []
            share = setting["dropout"]
            kept.append(
                [(each >= share) / (1 - share) for each in drawn] or [np.ones((len(chosen), size)) for size in sizes]
            )
        joined = [np.concatenate(each) for each in zip(*kept, strict=True)]
        model.fit([np.concatenate(batches), *joined], np.concatenate(targets), batch_size=16, shuffle=False, verbose=0)
    return np.array(model.predict_on_batch([rows, *(np.ones((75, size)) for size in sizes)]))


def _unscaled(stack: ParallelMLP, training: MLPTraining) -> tuple[Any, ...]:
    """The layers before anything is folded into the first."""
    kept = training.mean, training.scale
    training.mean, training.scale = np.zeros_like(kept[0]), np.ones_like(kept[1])
    layers = stack.build_layers(training, 0)
    if stack.hyperparameter_sets[0]["batch_norm"]:  # fresh: its mean is 0 and its variance 1, and epsilon is Keras's
        first = layers[0]
        layers = (type(first)(first.weights * np.float32(np.sqrt(1 + 1e-3)), first.bias, first.activation), *layers[1:])
    training.mean, training.scale = kept
    return layers


CASES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "weight_decay": 0.05},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "radam": {"optimizer": "radam", "weight_decay": 0.1},
    "ranger": {"optimizer": "ranger", "weight_decay": 0.1},
    "batch_norm": {"batch_norm": True, "activation": "silu"},
    "deep": {"hidden": "12x8x5", "activation": "mish", "dropout": 0.25},
    "smoothed": {"label_smoothing": 0.2, "activation": "gelu", "schedule": "cosine"},
    "mixup": {"mixup": 0.4, "activation": "leaky_relu", "dropout": 0.3},
    "cutmix": {"cutmix": 1.0, "label_smoothing": 0.1},
    "both": {"cutmix": 1.0, "mixup": 1.0},
    "all": {
        "hidden": "8x6",
        "learning_rate": 0.1,
        "dropout": 0.2,
        "mixup": 0.3,
        "label_smoothing": 0.1,
        "schedule": "cosine",
        "optimizer": "ranger",
    },
}
# Beside each: heads that differ in everything that may differ within one stack.
OTHER: dict[str, Any] = {
    "learning_rate": 0.08,
    "weight_decay": 0.3,
    "label_smoothing": 0.3,
    "dropout": 0.5,
    "schedule": "one_cycle",
}


@pytest.mark.parametrize("case", CASES)
def test_a_head_is_the_same_alone_beside_others_and_by_keras_fit(case: str) -> None:
    setting = CASES[case]
    mixed = {"mixup": 2.0} if setting.get("mixup") or not setting.get("cutmix") else {}
    alone, together = stack_of(setting), stack_of({**setting, **OTHER, **mixed}, setting, {**setting, "epochs": 2})
    found = answers(alone)[:, 0]
    beside = answers(together)
    theirs = plain(alone, alone.hyperparameter_sets[0])
    assert np.ptp(found, axis=0).max() > 0.3
    assert np.abs(found - beside[:, 1]).max() < 2e-4
    assert np.abs(found - theirs).max() < 2e-4
    assert np.abs(beside[:, 0] - beside[:, 1]).max() > 1e-2
    assert np.abs(answers(alone, 0)[:, 0] - found).max() > 0.1


@pytest.mark.parametrize("case", ["batch_norm", "deep", "smoothed", "mixup"])
def test_a_head_in_plain_arrays_answers_as_the_keras_model(case: str) -> None:
    stack = stack_of({**CASES[case], "learning_rate": 0.01}, CASES[case])
    training = trained(stack)
    for head in (0, 1):
        folded = Head(stack.build_layers(training, head), ("a", "b", "c")).predict_proba(data()[0])
        assert np.abs(folded - stack.predict(training, np.arange(75))[:, head]).max() < 1e-5


def test_trainings_that_take_turns_do_not_disturb_each_other() -> None:
    stack = stack_of(
        {"optimizer": "ranger", "batch_norm": True, "dropout": 0.3}, {"optimizer": "ranger", "batch_norm": True}
    )
    learnt = data()[2]
    one, two = stack.start_training(learnt), stack.start_training(learnt[:40])
    for _ in range(EPOCHS):
        stack.train_epoch(one)
        stack.train_epoch(two)
    alternating = stack.predict(one, np.arange(75))
    assert alternating == pytest.approx(answers(stack), abs=1e-6)
    assert np.abs(stack.predict(two, np.arange(75)) - alternating).max() > 1e-2


def test_some_heads_go_on_where_all_of_them_stopped() -> None:
    options: list[dict[str, Any]] = [
        {"mixup": 0.4, "learning_rate": rate, "optimizer": "ranger"} for rate in (0.01, 0.02, 0.05)
    ]
    options[2] |= {"schedule": "cosine", "dropout": 0.2}
    stack = stack_of(*options)
    training = stack.start_training(data()[2])
    stack.train_epoch(training)
    smaller = stack.select_heads([0, 2], [training])
    for _ in range(EPOCHS - 1):
        smaller.train_epoch(training)
    assert smaller.predict(training, np.arange(75)) == pytest.approx(answers(stack_of(*options))[:, [0, 2]], abs=1e-4)


def test_rows_are_standardised_by_the_rows_learnt_from() -> None:
    features, _, learnt = data()
    scaler = StandardScaler().fit(features[learnt].reshape(60, -1))
    training = stack_of({}).start_training(learnt)
    assert training.mean == pytest.approx(scaler.mean_, rel=1e-5)
    assert training.scale == pytest.approx(scaler.scale_, rel=1e-5)


def test_answers_come_in_order_whatever_the_number_of_rows() -> None:
    stack = stack_of({})
    training = trained(stack, 1)
    rows = np.random.default_rng(0).integers(75, size=600)
    assert stack.predict(training, rows) == pytest.approx(stack.predict(training, np.arange(75))[rows], abs=1e-6)


def test_a_compiled_stack_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from humeris.classify.heads.neural import parallel_mlp

    options = [{"dropout": 0.3, "mixup": 0.2}, {"dropout": 0.1, "learning_rate": 0.01}]
    expected = answers(stack_of(*options), 1)
    monkeypatch.setattr(parallel_mlp, "_MIN_XLA_WORK", 0)
    assert answers(stack_of(*options), 1) == pytest.approx(expected, abs=1e-5)
