"""SASRec as a row of Table 4: the ID encoder, trained by the baselines' schedule."""

from typing import Any

from stages.models.baselines.material import Material
from stages.models.sasrec import Sasrec, SasrecConfig


def build(material: Material) -> Sasrec:
    """An untrained SASRec."""
    m = material
    return Sasrec(
        SasrecConfig(
            items=m.items, dim=m.dim, layers=m.layers, heads=m.heads, dropout=m.dropout, max_length=m.max_length
        )
    )


def restore(config: dict[str, Any]) -> Sasrec:
    """A system of this configuration, to load saved weights into."""
    return Sasrec(SasrecConfig(**config))
