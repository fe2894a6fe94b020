"""Compute activations of images with backbones and store them in the cache. May import `cache`.

The package is callable: `humeris.extract("photos")` calls `api.extract`. It has to be, because importing any module of this
package makes the import system set the attribute `extract` of `humeris` to the package.
"""

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package that can be called as the function of the same name, which is imported on first use."""

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
