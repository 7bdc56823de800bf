"""The pipe process of a Python repository that brings none: imports `src.NAME` and answers with its `apply`.

Runs as a script in the author's interpreter. A module that runs its own loop (ADK, `Algorithmia.handler`) never
returns from its import before the end of stdin, and then there is nothing left to do.
"""

import sys

del sys.path[0]  # our folder: its modules are none of the author's

import base64  # noqa: E402
import importlib  # noqa: E402
import inspect  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import traceback  # noqa: E402

_FIFO = "/tmp/algoout"  # noqa: S108


def main() -> None:
    module = importlib.import_module(f"src.{sys.argv[1]}")
    if os.path.exists(".adk"):
        return
    apply = getattr(module, "apply", None)
    if not callable(apply):
        sys.exit(f"src/{sys.argv[1]}.py has no function apply(input)")
    try:
        inspect.signature(apply).bind(None)
    except TypeError as error:
        sys.exit(f"TypeError: src/{sys.argv[1]}.py: apply is called with one argument, the input: {error}")
    except ValueError:  # a native function, which does not say
        pass
    print("PIPE_INIT_COMPLETE", flush=True)  # noqa: T201
    for line in sys.stdin:
        reply = _answer(apply, json.loads(line))
        sys.stdout.flush()
        with open(_FIFO, "w", encoding="utf-8") as fifo:
            fifo.write(reply)


def _answer(apply, request):
    try:
        data = request["data"]
        if request["content_type"] == "binary":
            data = base64.b64decode(data)
        return _format(apply(data))
    except Exception as error:
        return json.dumps(
            {
                "error": {
                    "message": str(error) or type(error).__name__,
                    "stacktrace": "".join(traceback.format_exception(error.with_traceback(_below_us(error)))),
                    "error_type": getattr(error, "error_type", "AlgorithmError"),
                }
            },
            default=str,
        )


def _below_us(error):
    return error.__traceback__ and error.__traceback__.tb_next


def _format(value):
    kind = "json"
    if isinstance(value, (bytes, bytearray)):
        kind, value = "binary", base64.b64encode(value).decode("ascii")
    elif isinstance(value, str):
        kind = "text"
    return json.dumps({"result": value, "metadata": {"content_type": kind}})


if __name__ == "__main__":
    main()
