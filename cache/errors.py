"""The exceptions of humeris, as one tree.

    HumerisError
    ├── CacheError        (OSError)            the cache folder
    │   ├── NotACache                          a folder that is something else
    │   ├── CacheReadOnly                      a write was needed and is not allowed
    │   ├── CacheFull                          no space left for a write
    │   └── RowsMissing   (LookupError)        rows were asked for that are not stored
    ├── ConfigError       (ValueError)         a setting, or a file of settings
    ├── DataError         (ValueError)         the images and their labels
    ├── BackboneError     (ValueError)         a network that cannot be built as asked
    │   ├── LayerError    (LookupError)        a layer or pool that the network does not have
    │   ├── WeightsError                       a weights file that is missing or does not fit
    │   └── DeviceError                        a device that is not there, or that nothing can compute on
    ├── HeadError         (ValueError)         a head setting
    ├── RunError          (ValueError)         a run folder
    ├── ModelError        (ValueError)         an exported model file
    ├── TrackingError     (RuntimeError)       a tracker that is not there, or did not take a run
    └── ParityError       (ArithmeticError)    an export that disagrees with the cached features

The tree lies in the lowest folder because every stage raises from it.
Each message is one line that leads with the fault, then the evidence, then the remedy.
"""

from __future__ import annotations


class HumerisError(Exception):
    """Base class of all errors that this package raises on purpose; the text is one line for the user."""


class CacheError(HumerisError, OSError):
    """The cache folder cannot be used as asked."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class NotACache(CacheError):
    """The folder exists and is not a humeris cache."""


class CacheReadOnly(CacheError):
    """A write was needed, and writing is not permitted."""


class CacheFull(CacheError):
    """The disk, quota or file-size limit does not allow another file."""


class RowsMissing(CacheError, LookupError):
    """Requested rows are in no valid shard."""


class ConfigError(HumerisError, ValueError):
    """A setting is unknown or out of range, or a file of settings cannot be read."""


class DataError(HumerisError, ValueError):
    """The images or labels cannot be used."""


class BackboneError(HumerisError, ValueError):
    """The network cannot be found or built."""


class LayerError(BackboneError, LookupError):
    """The network has no such layer, or the layer has no such pool."""


class WeightsError(BackboneError):
    """The weights file is missing, corrupt or made for another network."""


class DeviceError(BackboneError):
    """The requested device does not exist, or Keras cannot use it."""


class HeadError(HumerisError, ValueError):
    """A head setting is unknown or out of range."""


class RunError(HumerisError, ValueError):
    """A run folder is missing, incomplete or made from other data."""


class ModelError(HumerisError, ValueError):
    """A model file is not one that humeris exported."""


class TrackingError(HumerisError, RuntimeError):
    """The tracker of a finished run is unknown, not installed, or did not accept the run."""


class ParityError(HumerisError, ArithmeticError):
    """The exported model's predictions differ from those of the cached features."""


class CorruptFile(Exception):
    """A file that must not be used; the text is the reason. Never reaches a caller of the cache."""


class UnreadableFile(CorruptFile):
    """A file that cannot be read now, or on this machine; it may be intact, so it is not quarantined."""
