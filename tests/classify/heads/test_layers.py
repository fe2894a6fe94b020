"""The layers of heads: NumPy, Keras, and Keras's own file in a process that has nothing of ours, all answer alike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from humeris.cache.errors import RunError
from humeris.classify.data.feature_matrix import FeatureMatrix
from humeris.classify.data.nearest_neighbors import top_k
from humeris.classify.export.stack_model import apply_layers
from humeris.classify.heads.head import Head
from humeris.classify.heads.layers import ACTIVATIONS, Dense, HeadLayer, L2Normalize, SelectColumns, Standardize
from humeris.classify.heads.neighbor_votes import NeighborVotes, vote

WIDTH, CLASSES = 12, 3
ASK = """
import json, sys, keras, numpy
rows = numpy.load("rows.npy")
for name in json.load(open("names.json")):
    model = keras.saving.load_model(name + ".keras")
    numpy.save(name + ".npy", model.predict_on_batch(rows))
assert not [name for name in sys.modules if name.partition(".")[0] == "humeris"]
"""


def some_rows(seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(1, 2, size=(17, WIDTH)).astype(np.float32)
    rows[3] = 0
    return rows


def heads() -> dict[str, Head]:
    random = np.random.default_rng(1)
    out = Dense(random.normal(size=(8, CLASSES)).astype(np.float32), np.arange(CLASSES, dtype=np.float32), "softmax")
    stored = L2Normalize().apply(random.normal(size=(40, WIDTH)).astype(np.float32))
    labels = random.integers(0, CLASSES, 40).astype(np.int32)
    scale = Standardize(*random.uniform(0.5, 2, size=(2, WIDTH)).astype(np.float32))
    first = random.normal(size=(WIDTH, 8)).astype(np.float32), random.normal(size=8).astype(np.float32)
    layers: dict[str, tuple[HeadLayer, ...]] = {name: (Dense(*first, name), out) for name in ACTIVATIONS}
    layers["unit"] = (scale, L2Normalize(), Dense(*first, "relu"), out)
    layers["columns"] = (SelectColumns(np.array([7, 0, 11, 2, 3, 5, 9, 1])), out)
    for weights in ("uniform", "distance"):
        for count in (1, 5, 40):
            layers[f"{weights}{count}"] = (scale, L2Normalize(), NeighborVotes(stored, labels, count, weights, CLASSES))
    return {name: Head(each, ("a", "b", "c")) for name, each in layers.items()}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[np.ndarray, np.ndarray, Any]]:
    """Of each head: what its Keras model answers here, what its file answers in a fresh process, and the model."""
    import keras

    folder, found = tmp_path_factory.mktemp("layers"), {}
    np.save(folder / "rows.npy", some_rows())
    for name, head in heads().items():
        rows = keras.Input((WIDTH,))
        found[name] = keras.Model(rows, apply_layers(head.layers, rows))
        found[name].save(folder / f"{name}.keras")
    (folder / "names.json").write_text(json.dumps(list(found)))
    subprocess.run([sys.executable, "-c", ASK], cwd=folder, check=True, capture_output=True)
    return {
        name: (model.predict_on_batch(some_rows()), np.load(folder / f"{name}.npy"), model) for name, model in found.items()
    }


@pytest.mark.parametrize("name", heads())
def test_numpy_keras_and_the_file_in_a_fresh_process_answer_alike(name: str, answers: dict[str, Any]) -> None:
    here, there, _ = answers[name]
    cached = heads()[name].predict_proba(some_rows())
    assert cached.shape == (17, CLASSES)
    assert np.ptp(cached, axis=0).max() > 0.01 or name.endswith("40")
    assert np.abs(cached - here).max() < 2e-6
    assert np.abs(cached - there).max() < 2e-6
    assert np.abs(cached.sum(axis=1) - 1).max() < 1e-6


@pytest.mark.parametrize("name", heads())
def test_the_last_layer_gives_the_probabilities(name: str, answers: dict[str, Any]) -> None:
    assert answers[name][2].output_names == ["probabilities"]


@pytest.mark.parametrize("name", heads())
def test_every_kind_of_layer_survives_its_files(name: str, tmp_path: Path) -> None:
    head, path = heads()[name], tmp_path / "head.npz"
    path.write_bytes(head.to_npz_bytes())
    again = Head.load(path, json.loads(json.dumps(head.to_metadata())))
    assert (again.predict_proba(some_rows()) == head.predict_proba(some_rows())).all()
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in head.layers]


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("relu", {"format": 1}, "format 1, not 2"),
        ("relu", {"layers": []}, "None probabilities for 3 class names"),
        ("relu", {"layers": [{"kind": "lambda"}]}, "unknown layer kind 'lambda'"),
        ("relu", {"layers": [{"kind": "dense", "activation": "exec"}]}, "unknown activation 'exec'"),
        ("relu", {"layers": [{"kind": "dense"}]}, "activation"),
        ("relu", {"layers": ["dense"]}, "string indices"),
        ("relu", {"class_names": ["a", "b"]}, "3 probabilities for 2 class names"),
        ("relu", {"layers": [{"kind": "dense", "activation": "relu"}]}, "8 probabilities for 3 class names"),
        ("columns", {"layers": [{"kind": "dense", "activation": "relu"}]}, "weights0"),
        ("uniform5", {"n_neighbors": 0}, "0 neighbors of 40 rows"),
        ("uniform5", {"n_neighbors": 41}, "41 neighbors of 40 rows"),
        ("uniform5", {"n_classes": 2}, "5 neighbors of 40 rows in 2 classes"),
        ("uniform5", {"weights": "rank"}, "weights 'rank'"),
        ("uniform5", {"n_neighbors": "5"}, "'<=' not supported"),
    ],
)
def test_a_description_that_does_not_fit_its_arrays_is_one_line(
    name: str, changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    head, path = heads()[name], tmp_path / "head.npz"
    path.write_bytes(head.to_npz_bytes())
    description = head.to_metadata()
    if name == "uniform5":
        description["layers"][-1] |= changed
    else:
        description |= changed
    with pytest.raises(RunError, match=r"head\.npz: cannot read the head: ") as caught:
        Head.load(path, description)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("unit", {"factor0": np.ones(5, np.float32)}),
        ("unit", {"mean0": np.ones((3, 4), np.float32)}),
        ("columns", {"indices0": np.array([-1, 0])}),
        ("columns", {"indices0": np.array([0.5, 1])}),
        ("columns", {"indices0": np.array([], int)}),
        ("relu", {"bias0": np.ones(7, np.float32)}),
        ("relu", {"weights1": np.ones((9, 3), np.float32)}),
        ("uniform5", {"labels2": np.full(40, 3)}),
        ("uniform5", {"labels2": np.zeros(39, int)}),
        ("uniform5", {"rows2": np.ones((40, 11), np.float32)}),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(name: str, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    head, path = heads()[name], tmp_path / "head.npz"
    path.write_bytes(head.to_npz_bytes())
    with np.load(path) as stored:
        named = {**stored, **arrays}
    np.savez(path, allow_pickle=False, **named)
    with pytest.raises(RunError, match=r"head\.npz: cannot read the head: "):
        Head.load(path, head.to_metadata())


def test_a_matrix_is_answered_block_by_block_as_an_array_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from humeris.classify.data import feature_matrix

    monkeypatch.setattr(feature_matrix, "_BLOCK", 4 * WIDTH * 5)
    for head in heads().values():
        blocks = head.predict_proba(FeatureMatrix.from_array(some_rows()))
        assert np.abs(blocks - head.predict_proba(some_rows())).max() < 1e-6


def test_chosen_columns_need_no_dense_matrix_of_zeros() -> None:
    out = Dense(np.ones((2, 2), np.float32), np.zeros(2, np.float32), "softmax")
    head = Head((SelectColumns(np.array([900_000, 5])), out), ("a", "b"))
    assert len(head.to_npz_bytes()) < 2000
    assert head.layers[0].compute_output_width(None) == 2


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_votes_are_scikit_learns_with_one_more_shared_by_all_classes(weights: str, count: int) -> None:
    random = np.random.default_rng(5)
    rows, labels = random.normal(size=(60, 6)).astype(np.float32), random.integers(0, 4, 60)
    asked = random.normal(size=(30, 6)).astype(np.float32)
    found = NeighborVotes(L2Normalize().apply(rows), labels, count, weights, 4).apply(L2Normalize().apply(asked))
    theirs = KNeighborsClassifier(count, weights=weights, metric="cosine").fit(rows, labels).predict_proba(asked)
    assert np.abs(found - (theirs * count + 1 / 4) / (count + 1)).max() < 1e-5
    assert (found.argmax(axis=1) == theirs.argmax(axis=1)).all()
    assert found.min() > 0


def test_classes_with_equal_votes_go_to_the_first_as_in_scikit_learn() -> None:
    rows = np.eye(4, dtype=np.float32)
    asked = np.array([[1, 0.9, 0.1, 0], [0, 0.2, 1, 0.9]], np.float32)
    found = NeighborVotes(rows, np.array([2, 1, 3, 0]), 2, "uniform", 4).apply(L2Normalize().apply(asked))
    peer = KNeighborsClassifier(2, metric="cosine").fit(rows, [2, 1, 3, 0])
    assert found.argmax(axis=1).tolist() == peer.predict(asked).tolist() == [1, 0]


def test_of_equally_near_rows_the_first_stored_vote() -> None:
    similarity = np.array([[0.5, 0.9, 0.5, 0.5, 0.1], [0.3] * 5], np.float32)
    values, places = top_k(similarity, 3)
    assert values.tolist() == [[np.float32(0.9), 0.5, 0.5], [np.float32(0.3)] * 3]
    assert places.tolist() == [[1, 0, 2], [0, 1, 2]]
    assert top_k(similarity, 5)[1].tolist() == [[1, 0, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_rows_that_are_the_same_image_share_the_vote_by_distance() -> None:
    cosines = np.array([[1.0, 1.0 - 1e-8, 0.5]], np.float32)
    found = vote(cosines, np.array([[0, 1, 2]]), 3, "distance")
    assert found[0, 0] == pytest.approx(found[0, 1])
    assert found[0, 2] < found[0, 0] / 3


def stored(cosines: list[float], labels: list[int], count: int, weights: str = "uniform") -> NeighborVotes:
    """Rows of two columns whose cosines with (1, 0) are these."""
    near = np.array(cosines)
    rows = np.stack([near, np.sqrt(1 - near**2)], axis=1).astype(np.float32)
    return NeighborVotes(rows, np.array(labels, np.int32), count, weights, 2)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize(
    ("cosines", "labels", "count", "tied"),
    [
        ([0.9, 0.5, 0.4], [0, 1, 0], 1, False),
        ([0.9, 0.9, 0.4], [0, 1, 0], 1, True),
        ([0.4, 0.9, 0.9], [0, 1, 0], 2, False),  # both of the equal ones vote
        ([0.9, 0.9, 0.4], [1, 1, 0], 1, False),  # and say the same
        ([0.9, 0.9000005, 0.4], [0, 1, 0], 1, True),
        ([0.9, 0.90001, 0.4], [0, 1, 0], 1, False),
        ([0.95, 0.5, 0.5, 0.5], [0, 1, 0, 1], 2, True),
        ([0.9, 0.8, 0.7], [0, 1, 0], 3, False),  # all rows vote
    ],
)
def test_a_tie_is_where_rows_of_several_classes_share_the_last_places(
    cosines: list[float], labels: list[int], count: int, tied: bool, weights: str
) -> None:
    layer = stored(cosines, labels, count, weights)
    assert layer.find_ties(np.array([[1, 0]], np.float32), 1e-6, 1e-4).tolist() == [tied]


@pytest.mark.parametrize("second", [0.0, 0.3, 0.9, 0.99, 0.995, 0.998, 0.9985])
@pytest.mark.parametrize("first", [0.3, 0.9, 0.99, 0.996, 0.9985, 1.0])
def test_neighbours_weighted_by_distance_are_tied_where_rounding_moves_their_votes(first: float, second: float) -> None:
    layer, asked = stored([first, second], [0, 1], 2, "distance"), np.array([[1, 0]], np.float32)
    moved = max(
        float(np.abs(stored([first + 1e-6 * up, second - 1e-6 * up], [0, 1], 2, "distance").apply(asked)
                     - layer.apply(asked)).max())
        for up in (-1, 1) if first + 1e-6 * up <= 1
    )  # fmt: skip
    tied = bool(layer.find_ties(asked, 1e-6, 1e-4)[0])
    if moved > 1.1e-4:
        assert tied
    if moved < 2e-5:
        assert not tied


def test_rows_that_are_equally_near_to_rounding_weigh_the_same() -> None:
    asked = np.array([[1, 0]], np.float32)
    one, other = (stored([0.9999999, at], [0, 1], 2, "distance").apply(asked) for at in (0.9999999, 0.9999992))
    assert one == pytest.approx(other, abs=1e-6)
