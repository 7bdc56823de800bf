"""Call an algorithm with one input and print its result."""

import argparse
import base64
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from serai.cli._connection import add_connection_options, connect
from serai.cli._streaming import Printer, follow
from serai.cli._terminal import pretty_json, say, show_json, show_text, write_bytes
from serai.errors import AlgorithmError, SeraiError

if TYPE_CHECKING:
    from serai import Response
    from serai._requests import Payload, Reference

EXAMPLE = """
-d sends JSON where TEXT is JSON, else text; -f sends the file's bytes. --type says otherwise.
The result: text as it is, JSON indented, binary as bytes (to a file or a pipe, not to a terminal).
--stream: each item as it comes, JSON on a line of its own; progress on stderr. Ctrl-C cancels the call.

example:
  serai call demo/hello -d HAL
  serai call vision/classify/1.2 -f photo.jpg --timeout 10
  serai call demo/sum -d '{"numbers": [1, 2, 3]}' --json
  serai call demo/count -d 10 --stream
"""

Form = Literal["json", "text", "binary", "void"]

#: What Python's reader of JSON takes for a number, and JSON does not know.
_CONSTANTS = ("NaN", "Infinity", "-Infinity")

_CONTENT_TYPES = {"json": "application/json", "text": "text/plain", "binary": "application/octet-stream"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", type=_reference, metavar="OWNER/NAME[/VERSION]", help="what to call")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-d", "--data", metavar="TEXT", help="the input itself")
    source.add_argument("-f", "--file", metavar="FILE", help="the input from a file; - is stdin")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--type", choices=_CONTENT_TYPES, help="send the input as this")
    kinds.add_argument("--text", dest="type", action="store_const", const="text", help="the same as --type text")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the result here, exactly as it is")
    parser.add_argument("--version", metavar="V", help="1.2.0, 1.2.*, latest or a hash (default: latest)")
    parser.add_argument("--timeout", type=_seconds, metavar="S", help="give up after so many seconds (server: 300)")
    parser.add_argument("--stream", action="store_true", help="print what the algorithm yields, as it comes")
    parser.add_argument("--stdout", action="store_true", help="show on stderr what the algorithm printed (owner only)")
    answer = parser.add_mutually_exclusive_group()
    answer.add_argument("--json", action="store_true", help="print the whole answer, with metadata, as JSON")
    answer.add_argument("--raw", action="store_true", help="print the bare result, byte for byte")
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    try:
        reference = _with_version(args.reference, args.version)
    except ValueError as error:
        args.usage_error(str(error))
        raise  # not reached: usage_error exits
    if args.stream and args.raw:
        args.usage_error("--raw has no meaning with --stream: items are printed as they are")
    payload = _read_input(args)
    _check_output(args.output)
    printer = Printer(args.output, args.json) if args.stream else None
    with connect(args) as client:
        algorithm = client.algo(str(reference))
        algorithm.set_options(args.timeout, args.stdout, "raw" if args.raw else "default")
        try:
            response = algorithm.pipe(payload) if printer is None else follow(algorithm, payload, printer)
        except AlgorithmError as error:
            _show_stdout(error.stdout)
            raise
    _show_stdout(response.metadata.stdout)
    for alert in response.metadata.alerts:
        say(alert)
    if printer is not None and _end_stream(printer, response, args):
        return 0
    form, value = _render(response, args)
    if args.output is not None:
        _save(Path(args.output), _encode(form, value))
    else:
        _show(form, value, args.raw)
    return 0


def _end_stream(printer: Printer, response: "Response", args: argparse.Namespace) -> bool:
    """Whether all has been shown; else there is a result, of an algorithm that yielded nothing."""
    if args.json:
        printer.line(_whole_answer(response))
    elif response.metadata.content_type != "void":
        return False
    printer.close()
    return True


def _reference(text: str) -> "Reference":
    from serai._requests import parse_reference

    try:
        return parse_reference(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _with_version(reference: "Reference", version: str | None) -> "Reference":
    from serai._requests import parse_reference

    if version is None:
        return reference
    if reference.version is not None:
        raise ValueError(f"{reference} names a version already; leave --version out")
    try:
        return parse_reference(f"{reference}/{version}")
    except ValueError:
        raise ValueError(f"{version!r} is no version; write 1.2.0, 1.2.*, latest or a git hash") from None


def _read_input(args: argparse.Namespace) -> "Payload":
    from serai._requests import Payload

    if args.data is not None:
        kind = args.type or _kind_of(args.data)
        return Payload(_CONTENT_TYPES[kind], args.data.encode("utf-8", "surrogateescape"))
    try:
        content = sys.stdin.buffer.read() if args.file == "-" else Path(args.file).read_bytes()
    except OSError as error:
        raise SeraiError(f"cannot read {args.file}: {error.strerror or error}") from error
    return Payload(_CONTENT_TYPES[args.type or "binary"], content)


def _kind_of(text: str) -> str:
    """JSON where it is JSON. Text that looks as if it had been meant to be JSON is not sent without a word."""
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        if text.lstrip()[:1] in ("[", "{") or text.strip() in _CONSTANTS:
            say(f"this is not JSON, so it is sent as text: {_what_is_wrong(error)}; --text says that this is meant")
        return "text"
    return "json"


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg[:1].lower()}{error.msg[1:]} at line {error.lineno}, column {error.colno}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def _check_output(output: str | None) -> None:
    """Find out before the call, which may cost something, that its result has nowhere to go."""
    if output is None:
        return
    path = Path(output)
    target = path if path.exists() else path.parent
    if path.is_dir() or not os.access(target, os.W_OK):
        raise SeraiError(f"cannot write {output}: choose a file in a folder that exists and is yours")


def _show_stdout(stdout: str | None) -> None:
    if stdout:
        say(stdout.rstrip("\n"))


def _render(response: "Response", args: argparse.Namespace) -> tuple[Form, Any]:
    """What to print, and as what."""
    result = response.result
    if args.json:
        return "json", _whole_answer(response)
    if isinstance(result, bytes):
        return "binary", result
    if response.metadata.content_type == "void":
        return "void", None
    if isinstance(result, str) and (args.raw or response.metadata.content_type == "text"):
        return "text", result
    return "json", result


def _show(form: Form, value: Any, exactly: bool) -> None:
    if form == "json":
        show_json(value)
    elif form == "text":
        write_bytes(value.encode()) if exactly and not sys.stdout.isatty() else show_text(value)
    elif form == "binary":
        if sys.stdout.isatty():
            num_bytes = f"{len(value)} byte{'s' * (len(value) != 1)}"
            raise SeraiError(f"the result is {num_bytes} of binary data; write it with -o FILE or to a pipe")
        write_bytes(value)


def _encode(form: Form, value: Any) -> bytes:
    """As a file holds it."""
    if form == "json":
        return pretty_json(value).encode("utf-8", "backslashreplace") + b"\n"
    if form == "text":
        return value.encode("utf-8", "backslashreplace")
    return b"" if form == "void" else value


def _whole_answer(response: "Response") -> dict[str, object]:
    result, about = response.result, response.metadata
    if isinstance(result, bytes):
        result = base64.b64encode(result).decode()
    metadata: dict[str, object] = {"content_type": about.content_type, "duration": about.duration}
    if about.request_id:
        metadata["request_id"] = about.request_id
    if about.num_items:
        metadata["num_items"] = about.num_items
    if about.stdout is not None:
        metadata["stdout"] = about.stdout
    return {"result": result, "metadata": metadata}


def _save(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise SeraiError(f"cannot write {path}: {error.strerror or error}") from error
