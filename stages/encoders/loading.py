"""Errors of loading an encoder of transformers, as one line."""

from collections.abc import Iterable
from pickle import UnpicklingError

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from stages.errors import InputError
from stages.files import user_path

DAMAGED = (SafetensorError, UnpicklingError)  # of a file that was cut short, or of Git LFS's pointer in its place
# as timm and transformers raise them
NOT_LOADED = (
    *DAMAGED, ImportError, LookupError, OSError, RuntimeError, StrictDataclassError, TypeError, ValueError,
)  # fmt: skip


def cannot_be_loaded(param: str, error: Exception, mend: str) -> InputError:
    """param: NAME=VALUE. Of a long message the first paragraph is shown."""
    reason = " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
    name = param.partition("=")[2]
    if not user_path(name).is_dir():  # transformers and timm take it for a name on the hub
        is_path = name.startswith((".", "/", "~"))
        reason = "there is no such folder" if is_path else f"no folder of that name here; as a model's name: {reason}"
    if isinstance(error, DAMAGED):
        mend = "a file of its weights is damaged or was not downloaded as a whole, get it again"
    return InputError(f"{param} cannot be loaded ({reason:.300}): {mend}")


def refuse_missing_weights(param: str, missing: Iterable[str], mend: str) -> None:
    """Raise InputError if transformers filled weights with random numbers, but for a pooler, which is not read then."""
    needed = sorted(key for key in missing if "pooler" not in key)
    if needed:
        raise InputError(f"{param}: its weights lack {len(needed)} tensors of the model ({needed[0]}, …): {mend}")
