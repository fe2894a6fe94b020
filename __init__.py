"""humeris: a folder of images, a frozen pretrained network run once, many light heads, one exported model.

    import humeris

    store = humeris.Store("features", write=True)
    images = humeris.load_images("photos", store)
    done = humeris.extract_features(images, "mobilenet_v2", [], store)
    run = humeris.sweep(done.images, store, ["logreg"])
    humeris.export(run, store, "photos.keras")

Names are loaded when first used, so that importing the package costs nothing.
"""

__version__ = "0.1.0"

_HOME = {
    "HumerisError": "cache.errors",
    "Predictor": "classify.model.predict",
    "Request": "extract.request",
    "Run": "classify.run",
    "Store": "cache.store",
    "export": "classify.model.export",
    "extract_features": "extract.extraction",
    "load_images": "extract.images",
    "rank": "classify.ranking",
    "run": "classify.pipeline",
    "sweep": "classify.sweep",
}
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> object:
    """The public name, from the module that defines it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
