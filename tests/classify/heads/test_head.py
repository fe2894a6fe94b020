"""A trained head as plain arrays: its answers, its file, the scaler folded in."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from humeris.cache.errors import HeadError, RunError
from humeris.classify.heads.head import Head
from humeris.classify.heads.head_grid import HeadGrid
from humeris.classify.heads.layers import Dense
from humeris.classify.heads.registry import get_head_family


def some_head(seed: int = 0) -> Head:
    random = np.random.default_rng(seed)
    first = Dense(random.normal(size=(6, 4)).astype(np.float32), random.normal(size=4).astype(np.float32), "relu")
    second = Dense(random.normal(size=(4, 3)).astype(np.float32), random.normal(size=3).astype(np.float32), "softmax")
    return Head((first, second), ("a", "b", "ç"))


def test_a_head_survives_its_files(tmp_path: Path) -> None:
    head = some_head()
    path = tmp_path / "head.npz"
    path.write_bytes(head.to_npz_bytes())
    again = Head.load(path, json.loads(json.dumps(head.to_metadata())))
    rows = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
    assert again.class_names == head.class_names
    assert (again.predict_proba(rows) == head.predict_proba(rows)).all()


def test_the_arrays_of_a_head_are_float32_and_need_no_pickle() -> None:
    with np.load(io.BytesIO(some_head().to_npz_bytes()), allow_pickle=False) as arrays:
        assert {arrays[name].dtype for name in arrays.files} == {np.dtype(np.float32)}


@pytest.mark.parametrize("content", [b"", b"not an archive", some_head().to_npz_bytes()[:200]])
def test_a_damaged_head_is_one_line_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "head.npz"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"head\.npz: cannot read the head: ") as caught:
        Head.load(path, some_head().to_metadata())
    assert "\n" not in str(caught.value)


def test_a_pickle_in_a_head_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    np.savez(path, weights0=np.array([{"any": "object"}], dtype=object), bias0=np.zeros(1))
    with pytest.raises(RunError, match="head"):
        Head.load(path, some_head().to_metadata())


def test_a_head_that_lacks_an_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    np.savez(path, weights0=np.zeros((2, 2), np.float32))
    with pytest.raises(RunError, match="bias0"):
        Head.load(path, some_head().to_metadata())


def test_maps_are_flattened_in_row_major_order() -> None:
    head = some_head()
    maps = np.random.default_rng(2).normal(size=(5, 1, 2, 3)).astype(np.float16)
    assert (head.predict_proba(maps) == head.predict_proba(maps.reshape(5, 6))).all()


def test_probabilities_are_finite_and_sum_to_one_for_huge_values() -> None:
    head = Head((Dense(np.full((1, 2), [1e4, -1e4], np.float32), np.zeros(2, np.float32), "softmax"),), ("a", "b"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = head.predict_proba(np.array([[1.0], [-1.0], [0.0]]))
    assert found.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]


def test_a_folded_scaler_gives_the_answers_on_raw_rows() -> None:
    random = np.random.default_rng(3)
    rows = random.normal(50, [0.01, 1, 300, 5, 7, 9], (20, 6))
    layer = some_head().layers[0]
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    expected = (rows - mean) / deviation @ layer.weights + layer.bias
    folded = layer.absorb_scaler(mean, deviation)
    assert folded.weights.dtype == np.float32
    assert np.abs(rows @ folded.weights.astype(float) + folded.bias - expected).max() < 1e-2


@pytest.mark.parametrize("classes", [2, 4])
def test_a_softmax_layer_on_raw_rows_has_scikit_learns_probabilities(classes: int) -> None:
    random = np.random.default_rng(4)
    labels = np.arange(60) % classes
    rows = (random.normal(size=(60, 5)) + labels[:, None]).astype(np.float32)
    peer = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    weights, bias = peer[1].coef_, peer[1].intercept_
    if classes == 2:  # a logistic function of z is a softmax of -z / 2 and z / 2
        weights, bias = np.vstack([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
    layer = Dense(weights.T.astype(np.float32), bias.astype(np.float32), "softmax")
    head = Head((layer.absorb_scaler(peer[0].mean_, peer[0].scale_),), tuple("abcd"[:classes]))
    assert np.abs(head.predict_proba(rows) - peer.predict_proba(rows)).max() < 1e-5


def test_a_head_is_written_name_and_options() -> None:
    assert HeadGrid.parse("logreg").hyperparameter_sets == tuple(
        {"C": value} for value in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    )
    head_grid = HeadGrid.parse(" mlp , hidden = 8/16 , epochs=2 ")
    assert [(each["hidden"], each["epochs"]) for each in head_grid.hyperparameter_sets] == [(8, 2), (16, 2)]
    assert head_grid.family.uses_keras
    assert head_grid.family is get_head_family("mlp")
    assert not HeadGrid.parse("logreg").family.uses_keras


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("forest", r"head 'forest': unknown head family; use one of logreg, "),
        ("", r"head '': unknown head family; use one of logreg, "),
        ("logreg,C", r"'C' is not option=value; write NAME,option=value,…"),
        ("logreg,c=1", r"head logreg has no option 'c' \(options: C\); did you mean C\?"),
        ("logreg,C=big", r"invalid C 'big'; give .*a/b/c"),
        ("logreg,C=1/", r"invalid C '1/'; give .*a/b/c"),
        ("logreg,C=0", r"invalid C '0'; give a number between 1e-12 and 1e\+12, "),
        ("logreg,C=-1/1", r"invalid C '-1/1'; give a number between 1e-12 and 1e\+12"),
        ("logreg,C=nan", r"invalid C 'nan'; give a number between 1e-12 and 1e\+12"),
        ("logreg,C=inf", r"invalid C 'inf'; give a number between 1e-12 and 1e\+12"),
        ("mlp,width=8", r"head mlp has no option 'width' \(options: hidden, .*\); use one of these"),
        ("mlp,hidden=8.5", r"invalid hidden '8.5'; give a width .*, or several as a/b/c"),
        ("mlp,hidden=0", r"invalid hidden '0'; give a width "),
        ("mlp,epochs=0", r"invalid epochs '0'; give a whole number above 0, "),
        ("mlp,batch_size=-1", r"invalid batch_size '-1'; give a whole number above 0"),
        ("mlp,learning_rate=0", r"invalid learning_rate '0'; give a number above 0"),
        ("mlp,learning_rate=nan", r"invalid learning_rate 'nan'; give a number above 0"),
        ("mlp,learning_rate=inf", r"invalid learning_rate 'inf'"),
        ("mlp,dropout=1", r"invalid dropout '1'; give a number from 0 to below 1, "),
        ("mlp,dropout=-0.1", r"invalid dropout '-0.1'; give a number from 0"),
    ],
)
def test_a_wrong_head_is_refused_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(HeadError, match=message):
        HeadGrid.parse(text)


def test_settings_written_twice_are_tried_once() -> None:
    assert HeadGrid.parse("logreg,C=1/0.1/1.0").hyperparameter_sets == ({"C": 0.1}, {"C": 1.0})
    assert len(HeadGrid.parse("mlp,hidden=8/8").hyperparameter_sets) == 1
