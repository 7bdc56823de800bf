"""What Algorithmia's libraries expect of Python and newer versions have dropped, and what they should say earlier; and
the packages, appended.

Only on the path of the process that runs an Algorithmia repository.
"""

import collections
import importlib.machinery
import inspect
import json
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


class AdkFinder:
    """Has Algorithmia's ADK say at once why every call will fail: it would keep what `load` raises for the calls."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "adk.ADK":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module):
                run(module)
                module.ADK.load = _load_and_tell(module, module.ADK.load)

            spec.loader.exec_module = exec_module
        return spec


def _load_and_tell(module, load):
    def load_and_tell(adk):
        if adk.is_local:
            load(adk)
            return
        adk.is_local = True  # so that it does not say yet that it is ready
        try:
            load(adk)
        finally:
            adk.is_local = False
        wrong = adk.loading_exception or _signature_error(adk)
        if wrong:
            answer = json.loads(module.create_exception(wrong, loading_exception=True))
            adk.write_to_pipe(json.dumps({**answer, "is_complaint": True}))
        print("PIPE_INIT_COMPLETE", flush=True)  # noqa: T201

    return load_and_tell


def _signature_error(adk):
    """What will be wrong with every call."""
    try:
        given = (None, adk.load_result) if adk.load_result and adk.apply_arity == 2 else (None,)
        inspect.signature(adk.apply_func).bind(*given)
    except TypeError as error:
        return TypeError(f"apply cannot be called with what it is given: {error}")
    except ValueError:  # a native function, which does not say
        pass


sys.meta_path.insert(0, AdkFinder)

if os.environ.get("SERAI_ENVIRONMENT"):
    site.addsitedir(os.environ["SERAI_ENVIRONMENT"])
if os.environ.get("SERAI_RUNTIME"):
    sys.path.append(os.environ["SERAI_RUNTIME"])  # `import serai`, for who lists it in requirements.txt
