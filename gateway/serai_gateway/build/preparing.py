"""Have every model of a build opened once, in a box: an author reads at once what callers would find out later."""

import os
from collections.abc import Sequence
from pathlib import Path

from serai_gateway.build.command import Log
from serai_gateway.build.environments import environment_cache
from serai_gateway.build.errors import InvalidModel
from serai_gateway.build.sections import FILE
from serai_gateway.build.spec import model_spec
from serai_gateway.catalogue import Model
from serai_gateway.files import FileStore
from serai_gpu_pool.prepare import PrepareError, prepare

_CHECK = f"if they are declared in {FILE}, check them; else try it with an input of its own"


def prepare_models(models: Sequence[Model], owner: str, home: Path, store: FileStore, log: Log) -> None:
    """Open and measure what is not known on this machine yet. Raises InvalidModel for one that cannot be opened.

    Where this machine cannot do it (no sandbox), the build goes on: such a model is opened at its first call.
    """
    cache = environment_cache()
    for model in models:
        try:
            prepared = prepare(model_spec(model, owner, "", store), home, threads=os.cpu_count() or 1, ahead=cache)
        except PrepareError as error:
            if error.kind != "unavailable":
                raise InvalidModel(f"{FILE}: models.{model.name}: {error}") from None
            log(f"model {model.name} was not opened: {error}")
        else:
            first = prepared.profile.forms[prepared.profile.first]
            log(f"model {model.name}: opens in {first.open_s * 1000:.1f} ms, takes {first.resident_bytes:,} bytes")
            if not first.batch_s:
                log(f"WARNING: model {model.name} ran with no input that was made up for its shapes; {_CHECK}")
