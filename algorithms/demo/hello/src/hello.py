"""A string in, a greeting out."""


class InputError(Exception):
    error_type = "InputError"


def apply(input):
    if not isinstance(input, str):
        raise InputError(f'expected a name as a string, such as "Ada", but got {_kind(input)}')
    return f"Hello {input}"


def _kind(value):
    """What a caller who knows JSON would call it."""
    if value is None:
        return "nothing"
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "bytes")
