"""What was measured of a model, to be known again after a restart. Pure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from serai_gpu_pool.scheduling.times import Times

if TYPE_CHECKING:
    from serai_gpu_pool.scheduling.model import Model

#: A record from outside is believed up to here: beyond it something went wrong when it was measured.
_MOST_BYTES, _MOST_S = 1 << 50, 3600.0


class Record(msgspec.Struct, frozen=True):
    """Bytes and seconds. Sizes of batches are numbers of items."""

    resident_bytes: int = 0
    load_s: dict[str, float] = {}  # by the tier it came from
    batch_s: dict[str, dict[int, float]] = {}  # by device, in the form that opens first
    best_batch_s: dict[str, dict[int, float]] = {}  # the same in the form that runs fastest
    activation_bytes: dict[int, int] = {}
    improve_bytes: int = 0  # most that opening its fastest form takes

    def apply(self, model: "Model", devices: Mapping[str, object]) -> None:
        """Make a model that is new here know what was known of it."""
        model.measured_bytes = _bounded(self.resident_bytes, _MOST_BYTES)
        model.improve_bytes = _bounded(self.improve_bytes, _MOST_BYTES)
        model.load_s.update({tier: _bounded(one, _MOST_S) for tier, one in self.load_s.items()})
        for known, times in ((self.batch_s, model.times), (self.best_batch_s, model.best_times)):
            for device in known.keys() & devices.keys():
                for size, seconds in known[device].items():
                    if size > 0 and 0 < seconds < _MOST_S:
                        times.setdefault(device, Times()).recall(size, seconds)
        for size, num_bytes in self.activation_bytes.items():
            if size > 0:
                model.activation_bytes[size] = _bounded(num_bytes, _MOST_BYTES)


def record_of(model: "Model") -> Record:
    return Record(
        model.measured_bytes,
        dict(model.load_s),
        {device: times.known for device, times in model.times.items()},
        {device: times.known for device, times in model.best_times.items()},
        dict(model.activation_bytes),
        model.improve_bytes,
    )


def _bounded(value, most):
    return max(0, min(value, most))
