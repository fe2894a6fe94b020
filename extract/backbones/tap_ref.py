"""Which cached features: a tap of one extraction."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class TapRef:
    """Cached features: the backbone as a user writes it, the extraction's folder, and the tap.

    What a backbone is called depends on what else is cached, so two references are equal whatever it is.
    """

    backbone: str = field(compare=False)
    extraction: str
    layer: str
    pool: str

    def __str__(self) -> str:
        return f"{self.backbone}/{self.layer}:{self.pool}"
