"""Which templates there are, and which end to make room: one for a version, the longest idle ones go first."""

import asyncio
import dataclasses
import itertools
from collections.abc import Callable
from time import monotonic

from serai.box.cgroups import Cgroups
from serai.ipc.messages import ForkPoint
from serai_runner.replicas.template import Say, Template
from serai_runner.sandbox.base import Box, Source
from serai_runner.settings import Settings

#: Boxes of templates are numbered from here on, far from those of replicas.
_FIRST_NUMBER = 1 << 40


class Templates:
    """Owns the templates of a host.

    Args:
        boxes: where the templates' own boxes come from.
        say: told what code printed while it was loaded.
    """

    def __init__(self, settings: Settings, boxes: Source, can_fork: bool, cgroups: Cgroups, say: Say) -> None:
        self._settings = settings
        self._boxes = boxes
        self._can_fork = can_fork
        self._say = say
        self._cgroups = cgroups
        self._loop = asyncio.get_running_loop()
        self._templates: dict[str, Template] = {}
        self._leaving: set[Template] = set()
        self._advice: dict[str, ForkPoint] = {}  # what a version's last box has learnt
        self._numbers = itertools.count(_FIRST_NUMBER)
        self._timer: asyncio.TimerHandle | None = None
        self.on_change: Callable[[], object] = lambda: None

    def __len__(self) -> int:
        return len(self._templates) + len(self._leaving)

    def source_for(self, box: Box) -> Source:
        """Where this box comes from. Raises OSError, SandboxUnavailable."""
        spec = box.spec
        point = self._advice.get(spec.key, "load")
        if not self._is_possible or spec.kind != "python" or spec.limits.concurrency > 1 or not point:
            return self._boxes
        template = self._templates.get(spec.key)
        if template is not None and template.models != box.models:
            self.drop(spec.key)
            template = None
        if template is None:
            self.end_idle(but=self._settings.max_templates - 1)
            if len(self._templates) >= self._settings.max_templates:
                return self._boxes
            number = next(self._numbers)
            wanted = dataclasses.replace(box, number=number, fork_after=point)
            template = Template(self._boxes, self._cgroups, wanted, self._on_news, self._say)
            self._templates[spec.key] = template
        return template

    def fork_point_of(self, box: Box, source: Source) -> ForkPoint:
        """What a fork of `source` still has to do is what its template did not."""
        return source.advice if isinstance(source, Template) else ""

    def drop(self, key: str) -> None:
        """No more forks from this one; it ends when its last has."""
        template = self._templates.pop(key, None)
        if template is not None:
            self._leaving.add(template)
            if template.is_idle:
                template.kill()

    def end_all(self) -> None:
        for template in [*self._templates.values(), *self._leaving]:
            template.kill()

    @property
    def _is_possible(self) -> bool:
        """Without control groups nobody could say what a fork left behind, or how much memory it may have."""
        can_limit = self._cgroups.limits_memory and self._cgroups.limits_pids
        return self._can_fork and can_limit and self._settings.max_templates > 0

    def end_idle(self, but: int = 0) -> None:
        """The longest idle ones, until there are so many."""
        idle = sorted((one for one in self._templates.values() if one.is_idle), key=lambda one: one.idle_since)
        for template in idle[: max(0, len(self._templates) - but)]:
            self.drop(template.key)

    def _on_news(self, template: Template) -> None:
        key = template.key
        self._advice[key] = template.advice
        if template.is_gone:
            self._leaving.discard(template)
            if self._templates.get(key) is template:
                del self._templates[key]
        elif (template.is_adopted or not template.advice) and self._templates.get(key) is template:
            self.drop(key)
        elif template in self._leaving:
            if template.is_idle:
                template.kill()
        elif template.is_idle:
            self._arm()
        self.on_change()

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._settings.template_idle_s, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        due = monotonic() - self._settings.template_idle_s
        idle = [one for one in self._templates.values() if one.is_idle]
        for template in idle:
            if template.idle_since <= due:
                self.drop(template.key)
        if idle:
            self._arm()
