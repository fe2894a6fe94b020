"""humeris: a folder of images, a frozen pretrained network run once, many light heads, one exported model.

    import humeris

    humeris.extract("photos", "mobilenet_v2", layers=["block_13*", "out_relu"])
    run = humeris.sweep("photos", ["logreg", "knn"])
    model = humeris.export(run, "photos.keras")
    humeris.predict(model, "new.jpg", top=3)

Every verb takes strings, paths or objects: a folder or `Images`, a cache folder or a `Store`, a run's folder or a `Run`,
settings by keyword or a config. Names are loaded when first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # the same names as below, for type checkers and editors
    from .cache.errors import BackboneError as BackboneError
    from .cache.errors import CacheError as CacheError
    from .cache.errors import CacheFull as CacheFull
    from .cache.errors import CacheReadOnly as CacheReadOnly
    from .cache.errors import ConfigError as ConfigError
    from .cache.errors import DataError as DataError
    from .cache.errors import DeviceError as DeviceError
    from .cache.errors import HeadError as HeadError
    from .cache.errors import HumerisError as HumerisError
    from .cache.errors import LayerError as LayerError
    from .cache.errors import ModelError as ModelError
    from .cache.errors import NotACache as NotACache
    from .cache.errors import ParityError as ParityError
    from .cache.errors import RowsMissing as RowsMissing
    from .cache.errors import RunError as RunError
    from .cache.errors import TrackingError as TrackingError
    from .cache.errors import WeightsError as WeightsError
    from .cache.store import Store as Store
    from .classify.api.features import load_features as load_features
    from .classify.api.features import rank as rank
    from .classify.api.models import export as export
    from .classify.api.models import predict as predict
    from .classify.api.models import report as report
    from .classify.api.runs import finetune as finetune
    from .classify.api.runs import run as run
    from .classify.api.runs import sweep as sweep
    from .classify.data.features import Features as Features
    from .classify.evaluate.target import Target as Target
    from .classify.evaluate.target_registry import register_target as register_target
    from .classify.export.export_result import ExportResult as ExportResult
    from .classify.export.formats.format import Format as Format
    from .classify.export.formats.registry import register_format as register_format
    from .classify.export.model_metadata import ModelMetadata as ModelMetadata
    from .classify.export.predict import Prediction as Prediction
    from .classify.export.predict import Predictor as Predictor
    from .classify.finetune.finetune import FinetuneResult as FinetuneResult
    from .classify.finetune.finetune_config import FinetuneConfig as FinetuneConfig
    from .classify.heads.head_family import HeadFamily as HeadFamily
    from .classify.heads.registry import register_head_family as register_head_family
    from .classify.pipeline import PipelineResult as PipelineResult
    from .classify.rank import Ranking as Ranking
    from .classify.report.page import ReportResult as ReportResult
    from .classify.report.report_config import ReportConfig as ReportConfig
    from .classify.runs.run import Run as Run
    from .classify.sweep.sweep_config import SweepConfig as SweepConfig
    from .extract.api import extract as extract
    from .extract.api import load_images as load_images
    from .extract.backbones.backbone_source import BackboneInfo as BackboneInfo
    from .extract.backbones.backbone_source import BackboneSource as BackboneSource
    from .extract.backbones.backbone_spec import BackboneSpec as BackboneSpec
    from .extract.backbones.registry import register_backbone_source as register_backbone_source
    from .extract.engine.extract import ExtractResult as ExtractResult
    from .extract.engine.extract_config import ExtractConfig as ExtractConfig
    from .extract.images.image_list import ImageList as ImageList
    from .extract.images.image_source import ImageSource as ImageSource
    from .extract.images.images import Images as Images
    from .extract.images.registry import register_image_source as register_image_source

_MODULES = {
    "BackboneError": "cache.errors",
    "BackboneInfo": "extract.backbones.backbone_source",
    "BackboneSource": "extract.backbones.backbone_source",
    "BackboneSpec": "extract.backbones.backbone_spec",
    "CacheError": "cache.errors",
    "CacheFull": "cache.errors",
    "CacheReadOnly": "cache.errors",
    "ConfigError": "cache.errors",
    "DataError": "cache.errors",
    "DeviceError": "cache.errors",
    "ExportResult": "classify.export.export_result",
    "ExtractConfig": "extract.engine.extract_config",
    "ExtractResult": "extract.engine.extract",
    "Features": "classify.data.features",
    "FinetuneConfig": "classify.finetune.finetune_config",
    "FinetuneResult": "classify.finetune.finetune",
    "Format": "classify.export.formats.format",
    "HeadError": "cache.errors",
    "HeadFamily": "classify.heads.head_family",
    "HumerisError": "cache.errors",
    "ImageList": "extract.images.image_list",
    "ImageSource": "extract.images.image_source",
    "Images": "extract.images.images",
    "LayerError": "cache.errors",
    "ModelError": "cache.errors",
    "ModelMetadata": "classify.export.model_metadata",
    "NotACache": "cache.errors",
    "ParityError": "cache.errors",
    "PipelineResult": "classify.pipeline",
    "Prediction": "classify.export.predict",
    "Predictor": "classify.export.predict",
    "Ranking": "classify.rank",
    "ReportConfig": "classify.report.report_config",
    "ReportResult": "classify.report.page",
    "RowsMissing": "cache.errors",
    "Run": "classify.runs.run",
    "RunError": "cache.errors",
    "Store": "cache.store",
    "SweepConfig": "classify.sweep.sweep_config",
    "Target": "classify.evaluate.target",
    "TrackingError": "cache.errors",
    "WeightsError": "cache.errors",
    "export": "classify.api.models",
    "extract": "extract.api",
    "finetune": "classify.api.runs",
    "load_features": "classify.api.features",
    "load_images": "extract.api",
    "predict": "classify.api.models",
    "rank": "classify.api.features",
    "register_backbone_source": "extract.backbones.registry",
    "register_format": "classify.export.formats.registry",
    "register_head_family": "classify.heads.registry",
    "register_image_source": "extract.images.registry",
    "register_target": "classify.evaluate.target_registry",
    "report": "classify.api.models",
    "run": "classify.api.runs",
    "sweep": "classify.api.runs",
}
__all__ = ["__version__", *sorted(_MODULES)]

if not TYPE_CHECKING:  # or a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        """The public name, from the module that defines it (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        return globals().get(name, value)  # `extract` is also a package, which can be called

    def __dir__() -> list[str]:
        """The public names."""
        return __all__
