"""Calls that failed, noted for whoever manages the algorithm: what it raised, and its crashes and timeouts.

What the platform refuses (a full queue, a daemon that is being restarted, a malformed request) is none of its doing.
The caller waits for nothing of this, and calls that succeed do not come here.
"""

import time

from serai.ipc.messages import Failure
from serai_gateway.catalogue import CallError, Catalogue, Version
from serai_gateway.errors import PlatformError
from serai_gateway.write_behind import WriteBehind

#: Of an input, a message and a stack trace the beginning is kept.
MAX_INPUT_CHARS = 128
MAX_MESSAGE_CHARS = 2000
MAX_STACKTRACE_CHARS = 8000
#: No character of UTF-8 is longer.
_MAX_CHAR_BYTES = 4


class Failures:
    """Owns what has been noted and not written yet."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._errors: WriteBehind[CallError] = WriteBehind(catalogue.add_call_errors, "errors of calls")

    def note(
        self, request_id: str, version: Version, caller: str, failure: Failure | PlatformError, input: bytes
    ) -> None:
        """
        Args:
            caller: name of the account that pays.
            input: empty unless this caller manages the algorithm: what others send is theirs.
        """
        message = failure.message if isinstance(failure, Failure) else str(failure)
        stacktrace = failure.stacktrace if isinstance(failure, Failure) else ""
        error = CallError(
            request_id,
            version.algorithm_id,
            version.semver or version.hash,
            caller,
            failure.error_type,
            message[:MAX_MESSAGE_CHARS],
            stacktrace[:MAX_STACKTRACE_CHARS],
            input[: MAX_INPUT_CHARS * _MAX_CHAR_BYTES].decode("utf-8", "replace")[:MAX_INPUT_CHARS],
            time.time(),
        )
        self._errors.add(version.algorithm_id, error)

    async def close(self) -> None:
        await self._errors.close()
