"""What a build said, line by line, with an end to it."""

import time

from serai_gateway.build.command import Log, clean_line

#: Most of a log that is kept and passed on, in characters.
MAX_LOG_CHARS = 1 << 20
_CUT = "… the log is cut here: it is longer than 1 MiB"
#: Room for the mark above and the last lines, which say how it ended.
_RESERVE_CHARS = 16 * 1024


class BuildLog:
    """Call it with lines; it passes each on and remembers it."""

    def __init__(self, listener: Log) -> None:
        self._listener = listener
        self._started = time.monotonic()
        self._lines: list[str] = []
        self._num_chars = 0
        self._is_cut = False

    def __call__(self, text: str) -> None:
        for line in text.split("\n"):
            self._add(clean_line(line), MAX_LOG_CHARS - _RESERVE_CHARS)

    def last(self, text: str) -> None:
        """How it ended, passed on in one piece: listeners who say it elsewhere can leave it out. Gets through after
        the log was cut, too."""
        self._is_cut = False
        self._add("\n".join(clean_line(line)[:600] for line in text.split("\n")[:20]), MAX_LOG_CHARS)

    def _add(self, text: str, limit: int) -> None:
        if self._is_cut:
            return
        if self._num_chars + len(text) + 1 > limit:
            self._is_cut, text = True, _CUT
        self._num_chars += len(text) + 1
        self._lines.append(text)
        self._listener(text)

    @property
    def text(self) -> str:
        return "\n".join(self._lines)
