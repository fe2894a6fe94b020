"""humeris: a folder of images, a frozen pretrained network run once, many light heads, one exported model.

    import humeris

    store = humeris.Store("features", write=True)
    images = humeris.load_images("photos", store)
    (result,) = humeris.extract_features(images, store, humeris.ExtractConfig("mobilenet_v2"))
    run = humeris.sweep(result.images, store, humeris.SweepConfig("logreg"))
    humeris.export(run, store, "photos.keras")

Names are loaded when first used, so that importing the package costs nothing.
"""

__version__ = "0.1.0"

_MODULES = {
    "BackboneInfo": "extract.backbones.backbone_source",
    "BackboneSource": "extract.backbones.backbone_source",
    "BackboneSpec": "extract.backbones.backbone_spec",
    "ExtractConfig": "extract.engine.extract_config",
    "FinetuneConfig": "classify.finetune.finetune_config",
    "Format": "classify.export.formats.format",
    "HeadFamily": "classify.heads.head_family",
    "HumerisError": "cache.errors",
    "ImageSource": "extract.images.image_source",
    "ModelMetadata": "classify.export.model_metadata",
    "Predictor": "classify.export.predict",
    "ReportConfig": "classify.report.report_config",
    "Run": "classify.runs.run",
    "Store": "cache.store",
    "SweepConfig": "classify.sweep.sweep_config",
    "Target": "classify.evaluate.target",
    "export": "classify.export.export",
    "extract_features": "extract.engine.extract",
    "load_images": "extract.images.load",
    "rank": "classify.rank",
    "register_backbone_source": "extract.backbones.registry",
    "register_format": "classify.export.formats.registry",
    "register_head_family": "classify.heads.registry",
    "register_image_source": "extract.images.registry",
    "register_target": "classify.evaluate.target_registry",
    "run": "classify.pipeline",
    "sweep": "classify.sweep.sweep",
}
__all__ = ["__version__", *sorted(_MODULES)]


def __getattr__(name: str) -> object:
    """The public name, from the module that defines it (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
