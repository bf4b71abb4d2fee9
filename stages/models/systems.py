"""Every other system of the paper's Table 4, by name: the module that builds it, what it reads, how it is trained.

A system's module is imported only when the system is built, so that a stage can hash it without loading it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any

from stages.errors import InputError

if TYPE_CHECKING:
    from stages.models.baselines.material import Material
    from stages.models.recommender import Recommender


class Scheme(Enum):
    """How a system is trained."""

    COUNTED = "nothing is trained"
    POSITIONS = "all positions of a history at once: the system is causal, or masks items itself"
    POSITIONS_WITH_USERS = "the same, and the batch names the users"
    PREFIXES = "one target per prefix: the system attends to its whole input"


@dataclass(frozen=True)
class System:
    """A row of the table.

    module: its file under `baselines/`, which has `build(material, **options)` and `restore(config)`.
    content: the modalities that it reads.
    dropout: as published; None: as the ID encoder's.
    """

    module: str
    scheme: Scheme
    content: tuple[str, ...] = ()
    dropout: float | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def module_name(self) -> str:
        return f"stages.models.baselines.{self.module}"

    def build(self, material: Material) -> Recommender:
        """The untrained system; a COUNTED one needs no training."""
        model: Recommender = import_module(self.module_name).build(material, **self.options)
        return model

    def restore(self, config: dict[str, Any]) -> Recommender:
        """The system with this configuration, into which the saved weights and tables are loaded."""
        model: Recommender = import_module(self.module_name).restore(config)
        return model


WITH_ID, WITHOUT_ID = {"use_id": True}, {"use_id": False}

SYSTEMS = {
    "pop": System("popularity", Scheme.COUNTED),
    "itemknn": System("itemknn", Scheme.COUNTED),
    "gru4rec": System("gru4rec", Scheme.POSITIONS, dropout=0.3),
    "sasrec": System("sasrec", Scheme.POSITIONS),
    "bert4rec": System("bert4rec", Scheme.POSITIONS, dropout=0.2),
    "unisrec_t": System("unisrec", Scheme.POSITIONS, ("text",), 0.5, WITHOUT_ID),
    "unisrec_t_id": System("unisrec", Scheme.POSITIONS, ("text",), 0.5, WITH_ID),
    "vqrec": System("vqrec", Scheme.POSITIONS, ("text",), 0.5),
    "missrec_t": System("missrec", Scheme.PREFIXES, ("text",), 0.5, WITHOUT_ID),
    "missrec_t_id": System("missrec", Scheme.PREFIXES, ("text",), 0.5, WITH_ID),
    "missrec_tv_id": System("missrec", Scheme.PREFIXES, ("text", "image"), 0.5, WITH_ID),
    "missrec_v": System("missrec", Scheme.PREFIXES, ("image",), 0.5, WITHOUT_ID),
    "missrec_tv": System("missrec", Scheme.PREFIXES, ("text", "image"), 0.5, WITHOUT_ID),
    "missrec_v_id": System("missrec", Scheme.PREFIXES, ("image",), 0.5, WITH_ID),
    "llmesr_t_id": System("llmesr", Scheme.POSITIONS_WITH_USERS, ("text",), 0.5),
    "llmesr_tv_id": System("llmesr", Scheme.POSITIONS_WITH_USERS, ("text", "image"), 0.5),
}


def named_system(arguments: list[str]) -> str:
    """The system that a stage's command line names. Raises InputError when it names none of SYSTEMS."""
    name = arguments[0] if arguments else ""
    if name not in SYSTEMS:
        raise InputError(f"baselines: there is no {name!r}; there are {', '.join(SYSTEMS)}")
    return name
