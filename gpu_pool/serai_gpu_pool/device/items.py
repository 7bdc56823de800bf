"""The items of one batch, from bytes to bytes: decode each, run them together, encode each answer."""

from serai.ipc.messages import Written
from serai_gpu_pool.core import Outcome
from serai_gpu_pool.device.messages import Item
from serai_gpu_pool.device.stacking import Answer, ModelRunError, Stacker
from serai_gpu_pool.tensors.arguments import Arguments, InputError, NotJson, from_binary, from_json, from_tensors
from serai_gpu_pool.tensors.results import OutputError, OutputTooLarge, to_bytes, to_json, to_tensors

#: Results of one batch, together. Far below the frame limit, and twice what one call may answer: what goes over it has
#: to run again by itself.
_MAX_REPLY_BYTES = 128 << 20


def run_items(
    model: Stacker, items: list[Item], bodies: list[memoryview]
) -> tuple[list[Outcome], list[bytes | memoryview]]:
    """One outcome an item, and the bytes of the results in their order. A bad item fails alone."""
    outcomes: dict[int, Outcome] = {}
    calls: dict[int, Arguments] = {}
    for position, (item, body) in enumerate(zip(items, bodies, strict=True)):
        try:
            calls[position] = _decode(item, body, model)
        except NotJson as error:
            outcomes[position] = Outcome(0, "ParsingError", str(error))
        except InputError as error:
            outcomes[position] = Outcome(0, "InputError", str(error))
        except MemoryError:
            outcomes[position] = Outcome(0, "OutOfMemoryError", "there was not enough memory for the input")
    parts: list[bytes | memoryview] = []
    num_bytes = 0
    answers = model.run(list(calls.values())) if calls else []
    for (position, call), answer in zip(calls.items(), answers, strict=True):
        outcomes[position], part = _encode(items[position], call, answer, _MAX_REPLY_BYTES - num_bytes)
        parts.append(part)
        num_bytes += len(part)
    return [outcomes[position] for position in range(len(items))], parts


def _decode(item: Item, body: memoryview, model: Stacker) -> Arguments:
    if item.form == "json":
        return from_json(body, model.signature)
    if item.form == "binary":
        return from_binary(body, model.signature)
    return from_tensors(body, item.tensors, tuple([one.name for one in item.outputs]), model.signature)


def _encode(item: Item, call: Arguments, answer: Answer, room: int) -> tuple[Outcome, bytes]:
    if isinstance(answer, ModelRunError):
        kind = "OutOfMemoryError" if answer.out_of_memory else "AlgorithmError"
        return Outcome(0, kind, str(answer)), b""
    tensors: tuple[Written, ...] = ()
    try:
        if item.form == "json":
            part = to_json(answer, call.squeezed)
        elif item.form == "binary":
            part = to_bytes(answer)
        else:
            tensors, part = to_tensors(answer, item.outputs, item.as_json)
    except OutputTooLarge as error:
        return Outcome(0, "too_large", str(error)), b""
    except OutputError as error:
        return Outcome(0, "AlgorithmError", str(error)), b""
    except MemoryError:
        return Outcome(0, "OutOfMemoryError", "there was not enough memory for the result"), b""
    if len(part) > room:
        return Outcome(0, "no_room", "the results of the calls that ran together were too large"), b""
    return Outcome(len(part), "ok", "", tensors), part
