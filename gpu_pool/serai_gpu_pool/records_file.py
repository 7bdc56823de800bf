"""What was measured of models, kept over restarts: HOME/pool/records.json, owned by the pool.

For a model that is new here the first figures come from its prepared folder, where it was measured when it was
published.
"""

import contextlib
import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import msgspec

from serai.ipc.messages import ModelSpec
from serai_gpu_pool import profile
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.records import Record, record_of

#: Models that are remembered; those that were not used for longest are forgotten. Some 500 bytes each.
_MOST = 20_000
_MAX_FILE_BYTES = 64 << 20

_decode = msgspec.json.Decoder(dict[str, Record]).decode


class RecordsFile:
    def __init__(self, home: Path) -> None:
        self._path = home / "pool" / "records.json"
        self._records: OrderedDict[str, Record] = OrderedDict(self._read())

    def recall(self, model: ModelSpec) -> Record | None:
        record = self._records.get(model.key)
        return record if record is not None else _measured_when_prepared(model)

    def save(self, models: Iterable[Model]) -> None:
        """Add what is known now. A record that cannot be written is lost and will be measured again."""
        for model in models:
            if model.measured_bytes:
                self._records[model.key] = record_of(model)
                self._records.move_to_end(model.key)
        while len(self._records) > _MOST:
            self._records.popitem(last=False)
        part = self._path.with_suffix(".part")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.write_bytes(msgspec.json.encode(dict(self._records)))
            os.replace(part, self._path)

    def _read(self) -> dict[str, Record]:
        try:
            if self._path.stat().st_size > _MAX_FILE_BYTES:
                return {}
            return _decode(self._path.read_bytes())
        except (OSError, ValueError):
            return {}


def _measured_when_prepared(model: ModelSpec) -> Record | None:
    if not model.prepared:
        return None
    found = profile.read(Path(model.prepared))
    if found is None:
        return None
    form = found.forms[found.first]
    load_s = {"disk": form.open_s}
    if form.page_in_s is not None:
        load_s["host"] = form.page_in_s
    best = found.forms[found.best]
    improve_bytes = best.load_peak_bytes + best.resident_bytes
    best_s = {"cpu": best.batch_s} if found.best != found.first else {}
    return Record(form.resident_bytes, load_s, {"cpu": form.batch_s}, best_s, form.activation_bytes, improve_bytes)
