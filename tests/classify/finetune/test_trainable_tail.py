"""The network that is trained: what it answers before and after, what changes in it and what never does."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.cache.errors import HeadError
from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.finetune import trainable_tail as networks
from humeris.classify.finetune.finetune_config import FinetuneConfig
from humeris.classify.finetune.trainable_tail import Network
from humeris.classify.heads.head import Head
from humeris.classify.heads.layers import Dense, HeadLayer, L2Normalize, SelectColumns, Standardize
from humeris.classify.heads.neighbor_votes import NeighborVotes
from humeris.classify.heads.neural.schedules import compute_factors
from humeris.extract.backbones import precision
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import Backbone, build
from humeris.extract.backbones.graph import Graph
from humeris.extract.backbones.keras_runtime import load_keras, reset_layer_names, seed_initializers
from humeris.extract.backbones.taps import Tap

keras = load_keras()
CLASSES = ("a", "b", "c")
WIDTH, COUNT = 6, 18
TOP = [Tap("relu3", "avg")]
RECIPE = FinetuneConfig("block4_out", batch_size=8).resolve()


def backbone(computing: str = "float32") -> Backbone:
    """Three convolutions with all that comes between them: the same weights whenever it is made."""
    with reset_layer_names(), seed_initializers(5):
        image = keras.Input((8, 8, 3), name="given")
        values = image
        for number in (1, 2, 3):
            values = keras.layers.Conv2D(4 if number < 3 else WIDTH, 3, padding="same", name=f"conv{number}")(values)
            values = keras.layers.BatchNormalization(name=f"bn{number}", momentum=0.5)(values)
            values = keras.layers.ReLU(name=f"relu{number}")(values)
            if number == 2:
                values = keras.layers.Dropout(0.3, seed=3, name="dropout")(values)
        model = keras.Model(image, values)
        for layer in model.layers:
            if "bn" in layer.name:
                random = np.random.default_rng(int(layer.name[-1]))
                layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
        model.trainable = False
        precision.apply(model, computing)
        return Backbone(None, Graph(model, (8, 8), "tf", fold_batch_norm=False))  # type: ignore[arg-type]


class Batches:
    """Arrays in batches of eight, the last of them short."""

    n_readers, epoch = 1, 0

    def __init__(self, values: np.ndarray, labels: np.ndarray) -> None:
        self.values, self.labels = values, labels

    def __len__(self) -> int:
        return math.ceil(len(self.values) / 8)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        here = slice(8 * number, 8 * number + 8)
        return self.values[here], self.labels[here]


IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3)).astype(np.uint8)
LABELS = np.eye(3, dtype=np.float32)[np.random.default_rng(1).integers(3, size=COUNT)]


def outputs(made: Backbone, layer: str) -> np.ndarray:
    """What a layer gives for the images, as the frozen network computes it."""
    model = keras.Model(made.graph.image, made.graph.outputs[layer])
    return np.asarray(model.predict_on_batch(IMAGES), np.float32)


def maps(made: Backbone, cut: str | None) -> Batches:
    return Batches(IMAGES if cut is None else outputs(made, cut), LABELS)


def dense(rows: int, columns: int, activation: str = "softmax", seed: int = 0) -> Dense:
    random = np.random.default_rng(seed)
    shapes = random.normal(size=(rows, columns)), random.normal(size=columns)
    return Dense(*(each.astype(np.float32) for each in shapes), activation)


SCALE = Standardize(np.linspace(-1, 1, WIDTH).astype(np.float32), np.linspace(0.5, 2, WIDTH).astype(np.float32))
HEADS: dict[str, tuple[HeadLayer, ...]] = {
    "linear": (dense(WIDTH, 3),),
    "hidden": (dense(WIDTH, 5, "relu", 1), dense(5, 3)),
    "scaled": (SCALE, dense(WIDTH, 3)),
    "of unit length": (L2Normalize(), dense(WIDTH, 3)),
    "of some columns": (SelectColumns(np.array([4, 0, 3])), dense(3, 3)),
}
MEAN, DEVIATION = np.linspace(0.1, 3, WIDTH), np.geomspace(0.05, 20, WIDTH)


def head(name: str = "linear") -> Head:
    return Head(HEADS[name], CLASSES)


def network(name: str = "linear", cut: str | None = "relu1", computing: str = "float32") -> Network:
    return Network(backbone(computing), TOP, cut, head(name), SingleLabel(CLASSES), MEAN, DEVIATION)


def weights(made: Network) -> dict[str, list[np.ndarray]]:
    found = {name: [np.array(each) for each in layer.get_weights()] for name, layer in made.tail.items()}
    return {**found, "head": [np.array(each) for layer in made._dense_layers for each in layer.get_weights()]}


def changed(before: dict[str, list[np.ndarray]], after: dict[str, list[np.ndarray]]) -> set[str]:
    return {name for name in before if not all(np.array_equal(a, b) for a, b in zip(before[name], after[name], strict=True))}


def trained(
    made: Network, recipe: FinetuneConfig, head_only: bool = False, cut: str = "relu1"
) -> dict[str, list[np.ndarray]]:
    """The weights before; train for an epoch."""
    made.compile(recipe, head_only=head_only)
    before = weights(made)
    made.train_epoch(maps(backbone(), cut))
    return before


@pytest.mark.parametrize("cut", ["relu1", None])
@pytest.mark.parametrize("name", HEADS)
def test_untrained_it_answers_as_the_head_on_the_frozen_features(name: str, cut: str | None) -> None:
    """Also where features are standardised, with deviations four hundred times apart."""
    made = backbone()
    features = outputs(made, "relu3").mean(axis=(1, 2))
    found = network(name, cut).predict_proba(maps(made, cut))
    assert found.shape == (COUNT, 3)
    np.testing.assert_allclose(found, head(name).predict_proba(features), rtol=2e-4, atol=2e-6)


def test_several_taps_are_taken_side_by_side_above_one_cut() -> None:
    made = backbone()
    both = Head((dense(4 + WIDTH, 3),), CLASSES)
    wanted = [Tap("relu2", "max"), Tap("relu3", "avg")]
    features = np.hstack([outputs(made, "relu2").max(axis=(1, 2)), outputs(made, "relu3").mean(axis=(1, 2))])
    found = Network(made, wanted, "relu1", both, SingleLabel(CLASSES), features.mean(axis=0), 0.1 + features.std(axis=0))
    np.testing.assert_allclose(found.predict_proba(maps(made, "relu1")), both.predict_proba(features), rtol=2e-4, atol=2e-6)
    assert set(found.tail) == {"conv2", "bn2", "conv3", "bn3"}


@pytest.mark.parametrize("name", ["linear", "hidden", "scaled"])
def test_what_comes_out_is_a_head_on_raw_features_of_the_tuned_layers(name: str) -> None:
    made = network(name)
    trained(made, FinetuneConfig("block4_out", optimizer="sgd", learning_rate=0.01).resolve())
    answers = made.predict_proba(maps(backbone(), "relu1"))
    tuned, found = made.get_weights_and_head()
    other = backbone()
    for layer, values in tuned.items():
        other.graph.operations[layer].set_weights(values)
    features = outputs(other, "relu3").mean(axis=(1, 2))
    np.testing.assert_allclose(found.predict_proba(features), answers, rtol=1e-3, atol=1e-5)
    assert [type(layer) for layer in found.layers] == [type(layer) for layer in head(name).layers]
    assert found.class_names == CLASSES
    assert np.abs(answers - network(name).predict_proba(maps(backbone(), "relu1"))).max() > 1e-3


def test_while_the_head_alone_is_trained_the_layers_below_keep_their_weights() -> None:
    made = network("hidden")
    before = trained(made, RECIPE, head_only=True)
    assert changed(before, weights(made)) == {"head"}
    assert not any(np.array_equal(a, b) for a, b in zip(before["head"], weights(made)["head"], strict=True))


def test_normalisations_keep_their_weights_and_statistics_unless_asked() -> None:
    made = network()
    assert changed(trained(made, RECIPE), weights(made)) == {"conv2", "conv3", "head"}
    asked = network()
    before = trained(asked, FinetuneConfig("block4_out", train_batch_norm=True).resolve())
    after = weights(asked)
    assert changed(before, after) == {"conv2", "bn2", "conv3", "bn3", "head"}
    for name in ("bn2", "bn3"):
        assert not any(np.array_equal(a, b) for a, b in zip(before[name], after[name], strict=True))


def test_after_the_head_alone_all_is_trained_and_the_other_way_round() -> None:
    made = network()
    trained(made, RECIPE, head_only=True)
    assert changed(trained(made, RECIPE), weights(made)) == {"conv2", "conv3", "head"}
    assert changed(trained(made, RECIPE, head_only=True), weights(made)) == {"head"}


def test_from_images_every_layer_is_trained() -> None:
    made = network(cut=None)
    made.compile(RECIPE, head_only=False)
    before = weights(made)
    made.train_epoch(maps(backbone(), None))
    assert changed(before, weights(made)) == {"conv1", "conv2", "conv3", "head"}


MOVED: dict[str, np.ndarray] = {}  # the weights of a layer as each optimizer left them


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "radam", "ranger"])
def test_each_optimizer_learns_and_goes_on_from_its_state_as_if_it_had_not_stopped(optimizer: str) -> None:
    """With dropout, whose draws go on as well."""
    recipe = FinetuneConfig("block4_out", optimizer=optimizer, learning_rate=0.02).resolve()
    batches = maps(backbone(), "relu1")
    made = network()
    before = made.predict_proba(batches)
    made.compile(recipe, head_only=False)
    for _ in range(2):
        made.train_epoch(batches)
    state = made.get_state()
    made.train_epoch(batches)
    other = network()
    other.compile(recipe, head_only=False)
    other.restore(state)
    other.train_epoch(batches)
    for name, arrays in weights(made).items():
        for mine, its in zip(arrays, weights(other)[name], strict=True):
            np.testing.assert_allclose(its, mine, rtol=1e-5, atol=1e-6)
    kernel = weights(made)["conv3"][0]
    assert all(np.abs(kernel - its).max() > 1e-5 for its in MOVED.values()), "it moved weights as another optimizer does"
    MOVED[optimizer] = kernel

    def loss(answers: np.ndarray) -> float:
        return float(-np.log(np.maximum((answers * LABELS).sum(axis=1), 1e-7)).mean())

    assert loss(made.predict_proba(batches)) < loss(before)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_with_smoothed_labels(smoothing: float) -> None:
    made, batches = network(), maps(backbone(), "relu1")
    answers = made.predict_proba(batches)
    made.compile(FinetuneConfig("block4_out", label_smoothing=smoothing).resolve(), head_only=False)
    values, labels = batches[0]
    found = float(made.model.test_on_batch(values, labels))
    soft = (1 - smoothing) * labels + smoothing / 3
    assert found == pytest.approx(-(soft * np.log(answers[:8])).sum(axis=1).mean(), rel=1e-4)


def test_the_learning_rate_at_each_step_is_the_one_that_is_given() -> None:
    made, seen = network(), []
    made.compile(RECIPE, head_only=False)
    rates = 0.01 * compute_factors("one_cycle", 3)

    def progress(number: int) -> None:
        seen.append((number, float(made.model.optimizer.learning_rate.numpy())))

    made.train_epoch(maps(backbone(), "relu1"), rates, progress)
    assert seen == [(number, pytest.approx(rate)) for number, rate in enumerate(rates, start=1)]


def test_the_head_alone_has_a_learning_rate_of_its_own() -> None:
    made = network()
    recipe = FinetuneConfig("block4_out", learning_rate=0.25, head_learning_rate=0.5).resolve()
    for head_only, rate in ((True, 0.5), (False, 0.25)):
        made.compile(recipe, head_only=head_only)
        assert float(made.model.optimizer.learning_rate.numpy()) == rate


@pytest.mark.parametrize("computing", ["bfloat16", "float16"])
def test_in_mixed_precision_weights_stay_in_float32_and_learn_as_in_float32(computing: str) -> None:
    moved = []
    for each in ("float32", computing):
        made = network(cut="dropout", computing=each)
        before = trained(
            made, FinetuneConfig("block4_out", optimizer="sgd", learning_rate=0.01, precision=each).resolve(), cut="dropout"
        )
        after = weights(made)
        assert {array.dtype for arrays in after.values() for array in arrays} == {np.dtype("float32")}
        moved.append(
            [(new - old).ravel() for name in ("conv3", "head") for new, old in zip(after[name], before[name], strict=True)]
        )
    for exact, found in zip(*moved, strict=True):
        assert np.linalg.norm(found - exact) > 0
    exact, found = map(np.concatenate, moved)
    assert np.linalg.norm(found - exact) < 0.1 * np.linalg.norm(exact)


def test_a_short_batch_is_answered_like_a_full_one_and_no_shape_is_compiled_for_it() -> None:
    made = backbone()
    model = keras.Model(made.graph.image, made.graph.outputs["relu3"])
    shapes = []

    class Seen:
        def predict_on_batch(self, images: np.ndarray) -> Any:
            shapes.append(images.shape)
            return model.predict_on_batch(images)

    found = networks.predict(Seen(), Batches(IMAGES, LABELS))
    np.testing.assert_allclose(found, outputs(made, "relu3"), rtol=1e-5, atol=1e-5)
    assert shapes == [(8, 8, 8, 3)] * 3


@pytest.mark.parametrize("name", HEADS)
def test_a_fresh_head_has_the_same_shape_and_nothing_that_was_learnt(name: str) -> None:
    first, again, other = (networks.reinitialize(head(name), seed) for seed in (0, 0, 1))
    old = [layer for layer in head(name).layers if not isinstance(layer, Standardize)]
    assert [type(layer) for layer in first.layers] == [type(layer) for layer in old]
    for mine, same, another, was in zip(first.layers, again.layers, other.layers, old, strict=True):
        if isinstance(mine, Dense):
            assert isinstance(was, Dense)
            assert mine.activation == was.activation
            assert mine.weights.shape == was.weights.shape
            assert not mine.bias.any()
            assert np.abs(mine.weights).max() <= math.sqrt(6 / sum(mine.weights.shape))  # Glorot's bound
            assert mine.weights.std() > 0.1
            assert np.array_equal(mine.weights, same.weights)  # type: ignore[union-attr]
            assert not np.array_equal(mine.weights, another.weights)  # type: ignore[union-attr]


UNTRAINABLE: dict[str, Callable[[], HeadLayer]] = {
    "neighbours": lambda: NeighborVotes(np.eye(WIDTH, dtype=np.float32), np.arange(WIDTH) % 3, 3, 3, "uniform"),
    "no probabilities": lambda: dense(WIDTH, 3, "linear"),
}


@pytest.mark.parametrize("name", UNTRAINABLE)
def test_a_head_that_is_no_weighted_sum_is_refused_in_a_line(name: str) -> None:
    with pytest.raises(HeadError) as caught:
        networks.check_trainable(Head((UNTRAINABLE[name](),), CLASSES), SingleLabel(CLASSES), "knn", "runs/mine, trial 1234")
    said = str(caught.value)
    assert said.startswith("runs/mine, trial 1234: head knn cannot be trained by gradient descent")
    assert "give another trial of leaderboard.csv with --trial" in said
    assert "\n" not in said


@pytest.mark.parametrize("nested", [False, True])
def test_tuned_weights_are_put_into_sequential_models_as_well(tmp_path: Path, nested: bool) -> None:
    body = keras.Sequential([keras.layers.Conv2D(4, 3, name="conv"), keras.layers.ReLU(name="out")], name="body")
    model = keras.Sequential([keras.Input((16, 16, 3)), *([body] if nested else body.layers)])
    model.save(tmp_path / "net.keras")
    request = BackboneSpec.parse(f"{tmp_path / 'net.keras'},preprocessing=tf")
    before = build(request, fold_batch_norm=False)
    (name,) = (name for name, layer in before.graph.operations.items() if layer.weights)
    assert name == ("body/conv" if nested else "conv")
    tuned = [values + 1 for values in before.graph.operations[name].get_weights()]
    after = build(request, fold_batch_norm=False, finetuned_weights={name: tuned})
    assert all(map(np.array_equal, after.graph.operations[name].get_weights(), tuned))
    assert after.spec == before.spec
