"""What Algorithmia's libraries expect of Python and newer versions have dropped; and the packages, appended.

Only on the path of the process that runs an Algorithmia repository.
"""

import collections
import inspect
import os
import site
import sys
import traceback

_format_exception = traceback.format_exception
_NOT_GIVEN = object()


def format_exception(exc=_NOT_GIVEN, /, *rest, etype=_NOT_GIVEN, **more):
    """As before 3.10, where the first parameter was called `etype`."""
    return _format_exception(exc if etype is _NOT_GIVEN else etype, *rest, **more)  # pyright: ignore


def getargspec(function):
    """As before 3.11."""
    full = inspect.getfullargspec(function)
    return ArgSpec(full.args, full.varargs, full.varkw, full.defaults)


ArgSpec = collections.namedtuple("ArgSpec", "args varargs keywords defaults")

traceback.format_exception = format_exception
if not hasattr(inspect, "getargspec"):
    inspect.getargspec = getargspec  # pyright: ignore[reportAttributeAccessIssue]

if os.environ.get("SERAI_ENVIRONMENT"):
    site.addsitedir(os.environ["SERAI_ENVIRONMENT"])
if os.environ.get("SERAI_RUNTIME"):
    sys.path.append(os.environ["SERAI_RUNTIME"])  # `import serai`, for who lists it in requirements.txt
