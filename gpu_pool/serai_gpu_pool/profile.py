"""What one model costs on one machine: measured when it is prepared, corrected by what is seen later. JSON.

Read by the pool's owner, so nothing here needs NumPy or a framework. Sizes are bytes, times seconds.
"""

from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from serai.ipc.messages import TensorSpec

#: As in `frameworks.base`.
Form = Literal["plain", "mapped", "packed"]

FILE_NAME = "profile.json"
#: A profile is some kB; a model with ten thousand inputs is none that we serve.
MAX_FILE_BYTES = 1 << 20
#: Batch sizes that are measured. Between them and beyond, `interpolated` guesses.
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
#: No figure of a profile may be beyond these: they come out of a process that handled somebody else's file.
_MAX_BYTES, _MAX_S, _MAX_BATCH = 1 << 50, 1e6, 1 << 20


class ProfileError(ValueError):
    """A profile cannot be read or says what cannot be."""


class FormProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One form of a model."""

    open_s: float
    resident_bytes: int  # device memory while it can run, skeleton included
    kept_bytes: int = 0  # private memory that stays while its weights are paged out
    load_peak_bytes: int = 0  # most private memory while it is opened, beyond what was there before
    page_in_s: float | None = None  # None: it cannot page
    batch_s: dict[int, float] = {}
    activation_bytes: dict[int, int] = {}  # most private memory while a batch runs, beyond what is resident

    def seconds(self, batch: int) -> float | None:
        """How long a batch of so many takes; None: nothing was measured."""
        return interpolated(self.batch_s, batch)

    def activation(self, batch: int) -> int | None:
        """Memory that a batch of so many needs while it runs; None: nothing was measured."""
        wanted = interpolated(self.activation_bytes, batch)
        return None if wanted is None else int(wanted)


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model file, by content, under one runtime on one kind of processor."""

    sha256: str
    runtime: str  # version and processor that the figures hold for: `prepare.runtime_tag`
    threads: int  # that a run used
    first: Form  # to open at once
    best: Form  # runs fastest
    forms: dict[Form, FormProfile]
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    graph_bytes: int = 0  # of the prepared form's files; 0: there is none
    weights_bytes: int = 0

    @property
    def has_prepared_form(self) -> bool:
        return self.graph_bytes > 0


def interpolated(points: Mapping[int, float], at: int) -> float | None:
    """Value at `at`: on the line between its neighbours, or on from the last two; never falling beyond the end."""
    if not points:
        return None
    if at in points:
        return float(points[at])
    sizes = sorted(points)
    if at < sizes[0]:
        return float(points[sizes[0]])
    if len(sizes) == 1:  # one figure tells nothing of how it grows: by the item is the careful guess
        return points[sizes[0]] * at / sizes[0]
    index = min(bisect_left(sizes, at), len(sizes) - 1)
    low, high = sizes[index - 1], sizes[index]
    slope = (points[high] - points[low]) / (high - low)
    if at > high:
        return points[high] + max(0.0, slope) * (at - high)
    return points[low] + slope * (at - low)


def merged(old: Profile, newer: Profile) -> Profile:
    """Newer figures where there are any, older ones where not. Those of another runtime or thread count do not mix."""
    if (old.sha256, old.runtime, old.threads) != (newer.sha256, newer.runtime, newer.threads):
        return newer
    forms = dict(old.forms)
    for name, form in newer.forms.items():
        before = forms.get(name)
        if before is not None:
            form = msgspec.structs.replace(
                form,
                batch_s=before.batch_s | form.batch_s,
                activation_bytes=before.activation_bytes | form.activation_bytes,
                page_in_s=before.page_in_s if form.page_in_s is None else form.page_in_s,
            )
        forms[name] = form
    return msgspec.structs.replace(newer, forms=forms)


def encode(profile: Profile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(profile), indent=1)


def decode(data: bytes) -> Profile:
    """Raises ProfileError for anything that is no profile, or says what cannot be."""
    try:
        profile = msgspec.json.decode(data, type=Profile)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProfileError(f"not a profile: {error}") from None
    for name in {profile.first, profile.best}:
        if name not in profile.forms:
            raise ProfileError(f'form "{name}" has no figures')
    if not all(_is_count(value) for value in (profile.graph_bytes, profile.weights_bytes, profile.threads)):
        raise ProfileError("a size is impossible")
    for form in profile.forms.values():
        _check(form)
    return profile


def read(folder: Path) -> Profile | None:
    """The profile in a prepared folder; None: there is none, or none that makes sense."""
    try:
        with open(folder / FILE_NAME, "rb") as file:
            return decode(file.read(MAX_FILE_BYTES))
    except (OSError, ProfileError):
        return None


def _check(form: FormProfile) -> None:
    times = [form.open_s, form.page_in_s or 0.0, *form.batch_s.values()]
    if not all(0 <= value <= _MAX_S for value in times):  # not a number is in no range either
        raise ProfileError("a time is impossible")
    sizes = [form.resident_bytes, form.kept_bytes, form.load_peak_bytes, *form.activation_bytes.values()]
    if not all(map(_is_count, sizes)):
        raise ProfileError("a size is impossible")
    if not all(1 <= batch <= _MAX_BATCH for batch in (*form.batch_s, *form.activation_bytes)):
        raise ProfileError("a batch size is impossible")


def _is_count(value: int) -> bool:
    return 0 <= value <= _MAX_BYTES
