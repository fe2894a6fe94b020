"""Compute activations of images with backbones and store them in the cache. May import `cache`.

The package can be called: `humeris.extract("photos")` is `api.extract`, whatever was imported before, since the import
system makes this package the attribute `extract` of `humeris`.
"""

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package that is called like the function it is named after, which is imported when first asked for."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return self.__wrapped__(*args, **settings)

    @property
    def __wrapped__(self) -> Any:
        from .api import extract

        return extract

    @property
    def __signature__(self) -> Any:
        import inspect

        return inspect.signature(self.__wrapped__)

    @property
    def __doc__(self) -> Any:  # type: ignore[override]
        return self.__wrapped__.__doc__


sys.modules[__name__].__class__ = _CallablePackage
