"""The models that a worker holds, and who is using them just now.

A model may be replaced by a faster form of itself while batches run: those that have begun finish in the old one, which
is closed after the last of them.
"""

import contextlib
import threading
from collections.abc import Iterator

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.device.messages import Improved, Loaded
from serai_gpu_pool.device.stacking import Stacker
from serai_gpu_pool.frameworks.base import OpenModel, Source


class Held:
    """One model, in the form that it is open in at the moment."""

    def __init__(self, spec: ModelSpec, source: Source, model: OpenModel) -> None:
        self.spec = spec
        self.source = Source("", source.prepared)  # the file is only there while it is loaded
        self.model = model
        self._stacker = Stacker(model.signature, model.run)
        self.users = 0
        self._changed = threading.Condition()
        self._num_bytes = (
            model.resident_bytes()
        )  # of this form, paged in: asking the kernel takes longer than a page-in

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Stacker]:
        with self._changed:
            self.users += 1
            stacker = self._stacker
        try:
            yield stacker
        finally:
            with self._changed:
                self.users -= 1
                if not self.users:
                    self._changed.notify_all()

    def replace(self, better: OpenModel) -> None:
        """From now on the better form runs. Returns when nobody uses the old one any more, and it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: not self.users)
            old, self.model = self.model, better
            self._num_bytes = better.resident_bytes()
            self._stacker = self._stacker.over(better.signature, better.run)
        old.close()

    def loaded(self, load_s: float, process_bytes: int) -> Loaded:
        model = self.model
        can_improve = model.form == "mapped"
        kept = self.kept_bytes()
        return Loaded(self.spec.key, self._num_bytes, kept, model.can_page, can_improve, load_s, process_bytes)

    def kept_bytes(self) -> int:
        """Of host memory, while it is paged out."""
        return self.model.kept_bytes() + self.model.cached_bytes()

    def improved(self, process_bytes: int) -> Improved:
        model = self.model
        return Improved(self.spec.key, self._num_bytes, self.kept_bytes(), model.can_page, process_bytes)


class HeldModels:
    """By key. One thread adds and removes; lanes look up what the owner says is there."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    def put(self, spec: ModelSpec, source: Source, model: OpenModel) -> Held:
        held = self._held[spec.key] = Held(spec, source, model)
        return held

    def get(self, key: str) -> Held:
        return self._held[key]

    def drop(self, key: str) -> None:
        self._held.pop(key).model.close()

    def in_use(self, key: str) -> contextlib.AbstractContextManager[Stacker]:
        return self._held[key].in_use()

    @property
    def num_in_use(self) -> int:
        return sum(held.users for held in list(self._held.values()))
