"""Models that are to be loaded, in groups by who waits: nobody's many models are in front of everybody's. Pure."""

from collections.abc import Iterator
from itertools import islice

from serai_gpu_pool.scheduling.model import Model

#: Who waits: framework and owner, as far as workers are not shared, and the payer that asked first.
Group = tuple[str, str, str]

#: Groups, and models of each, that are looked at in one turn. A group that got a load goes to the end.
_GROUPS, _MODELS = 256, 4


class Wanted:
    __slots__ = ("_group_of", "_groups")

    def __init__(self) -> None:
        self._groups: dict[Group, dict[str, Model]] = {}  # each: the longest wanted first
        self._group_of: dict[str, Group] = {}

    def __len__(self) -> int:
        return len(self._group_of)

    def __contains__(self, key: str) -> bool:
        return key in self._group_of

    def add(self, model: Model, owner: str) -> None:
        """`owner`: of the worker that it needs; empty: a shared one."""
        group = model.framework, owner, model.queue.first_payer
        self._group_of[model.key] = group
        self._groups.setdefault(group, {})[model.key] = model

    def discard(self, key: str) -> None:
        """Nothing happens when it is not here."""
        group = self._group_of.pop(key, None)
        if group is None:
            return
        models = self._groups.pop(group)
        del models[key]
        if models:
            self._groups[group] = models

    def first(self) -> Iterator[Model]:
        """The longest wanted of each group."""
        for models in list(islice(self._groups.values(), _GROUPS)):
            yield from list(islice(models.values(), _MODELS))
