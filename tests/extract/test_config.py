"""Configs: validation, conversion to plain values and back, and the fields that affect results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest

from humeris.cache.errors import BackboneError, CacheError, ConfigError, DataError, HeadError
from humeris.classify.finetune.finetune_config import FinetuneConfig
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.config import NO_EFFECT, RESOLVED, Config
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.pixels.augment import Policy

NANO = BackboneSpec.parse("nano", weights="random", seed=3, precision="bfloat16")
FULL: Mapping[type[Config], dict[str, Any]] = {
    ExtractConfig: {
        "backbones": [NANO, "mobilenet_v2,alpha=0.35"], "layers": ["block*_out", "stem:max"], "pools": ["avg", "grid2"],
        "weights": "random", "image_size": "96x64", "precision": "bfloat16", "seed": 7, "views": 3, "augment": "crop,flip",
        "compression": "gzip", "limit": 5, "batch_size": 8, "devices": ["cpu"], "jobs": 2, "cache": "features",
    },
    SweepConfig: {
        "heads": ["logreg,C=0.1/1", "mlp"], "search": "random", "trials": 4, "backbones": [NANO, "nano"],
        "weights": "random", "image_size": 32, "layers": ["nano/a", "b+c:max"], "pools": "max", "concatenate": True,
        "views": 2, "augment": "flip", "average_views": True, "select": "cv", "seed": 9, "limit": 5, "jobs": 1,
        "out": "runs/a", "cache": Path("features"),
    },
    FinetuneConfig: {
        "from_layer": "block4_out", "trial": "abc", "epochs": 3, "head_epochs": 1, "patience": 2, "batch_size": 8,
        "optimizer": "sgd", "learning_rate": 0.1, "head_learning_rate": 0.2, "schedule": "constant", "weight_decay": 0.1,
        "label_smoothing": 0.1, "mixup": 0.2, "cutmix": 0.3, "views": 2, "augment": "flip", "train_batch_norm": True,
        "precision": "bfloat16", "refit": False, "compression": "gzip", "backbones": [NANO], "jobs": 1, "devices": "cpu",
        "out": "runs/b", "cache": "features",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", FULL, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("full", [True, False])
def test_a_config_and_its_plain_form_undo_each_other(kind: type[Config], full: bool) -> None:
    config = kind(**(FULL[kind] if full else {}))
    plain = config.to_dict()
    assert kind.from_dict(plain) == config
    assert kind.from_dict(plain).to_dict() == plain
    assert all(isinstance(value, str | int | float | list | None) for value in plain.values())
    assert replace(config) == config
    if full:
        default = kind().to_dict()
        assert {name for name in plain if plain[name] == default[name]} <= {"grid", "weights"}


def test_texts_and_objects_ask_for_the_same() -> None:
    by_text = ExtractConfig("nano", weights="random", image_size=32, layers="a", views=1, augment="flip")
    spec = BackboneSpec.parse("nano,weights=random,image_size=32")
    assert by_text == ExtractConfig([spec], layers=("a",), views=1, augment=Policy.parse("flip=0.5"))
    assert by_text.backbone_specs == (spec,)
    assert by_text.to_dict()["augment"] == "flip=0.5"
    assert SweepConfig("ridge").head_grids == SweepConfig(["ridge"]).head_grids


def test_what_a_backbone_says_itself_stands_against_the_other_settings() -> None:
    config = ExtractConfig(["nano,weights=random", "nano", NANO], weights="synthetic", precision="float16")
    assert [(spec.weights, spec.precision) for spec in config.backbone_specs] == [
        ("random", "float16"), ("synthetic", "float16"), ("random", "bfloat16"),
    ]  # fmt: skip


def test_configs_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        ExtractConfig().batch_size = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("kind", "settings", "error", "message"),
    [
        (ExtractConfig, {"batch_size": 0}, ConfigError, "--batch-size 0: must be a whole number of at least 1"),
        (ExtractConfig, {"jobs": 1.5}, ConfigError, "--jobs 1.5: must be a whole number of at least 1"),
        (ExtractConfig, {"limit": True}, ConfigError, "--limit True: must be a whole number of at least 1"),
        (ExtractConfig, {"views": 2}, DataError, "give both --views and --augment, or neither"),
        (ExtractConfig, {"backbones": "nanoo"}, BackboneError, "nano"),
        (ExtractConfig, {"precision": "half"}, BackboneError, "unknown precision 'half'; choose one of auto, float32"),
        (ExtractConfig, {"compression": "zip"}, CacheError, "zip"),
        (SweepConfig, {"heads": "forest"}, HeadError, "head 'forest': unknown head family; use one of logreg"),
        (SweepConfig, {"trials": 3}, HeadError, "--trials does not apply to --search grid"),
        (SweepConfig, {"average_views": True}, DataError, "--average-views is given without --views"),
        (SweepConfig, {"seed": -1}, ConfigError, "--seed -1: must be a whole number of at least 0"),
        (FinetuneConfig, {"views": 2, "augment": "flip"}, HeadError, "--views has no effect with --from input"),
        (FinetuneConfig, {"from_layer": "x", "weights": "random"}, HeadError, "--weights random needs --from input"),
        (FinetuneConfig, {"epochs": 0}, HeadError, "--epochs 0: too few; give at least 1"),
        (FinetuneConfig, {"augment": "flop"}, DataError, "augmentation 'flop'"),
        (SweepConfig, {"grid": "none.toml"}, HeadError, "none.toml: no such file; check the path"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(
    kind: type[Config], settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        kind(**settings)
    assert "\n" not in str(caught.value)


def test_an_unknown_setting_is_refused_with_the_closest() -> None:
    with pytest.raises(ConfigError, match="ExtractConfig: no setting named 'batchsize'; did you mean batch_size"):
        ExtractConfig.from_dict({"batchsize": 3})


def test_a_field_that_nobody_thought_of_decides_the_result() -> None:
    @dataclass(frozen=True)
    class Wider(SweepConfig):
        threshold: float = 0.5
        color: str = field(default="blue", metadata=NO_EFFECT)
        query_text: str = field(default="", metadata=RESOLVED)

    settings = Wider().get_result_settings()
    assert set(settings) == {*SweepConfig().get_result_settings(), "threshold"}
    assert Wider(threshold=0.7).get_result_settings() != settings
    assert Wider(color="red", query_text="x", jobs=1, out="a").get_result_settings() == settings


def test_only_what_changes_no_figure_is_marked_so() -> None:
    marked = {
        kind.__name__: {each.name for each in fields(kind) if not each.metadata.get("affects_results", True)}
        for kind in FULL
    }
    assert marked == {
        "ExtractConfig": {"devices", "jobs", "cache"},
        "SweepConfig": {"jobs", "out", "cache"},
        "FinetuneConfig": {"compression", "backbones", "jobs", "devices", "out", "cache"},
    }
    assert set(SweepConfig().get_result_settings()) == {"views", "augment", "average_views", "seed"}
