"""Serai: call algorithms from anywhere, and write them.

    import serai
    serai.client().algo("vision/classify").pipe(open("photo.jpg", "rb").read()).result

Inside an algorithm, `serai.model("name").run(...)` runs a model of its manifest.

Names load on first use: inside an algorithm's own interpreter only the standard library may be there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serai.model import model as model

__version__ = "0.1.0"

#: Public name -> the module that has it.
_WHERE = {"model": "serai.model"}

__all__ = ["__version__", "model"]  # noqa: F822


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module 'serai' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value
