"""Counts the words of a text, or of each text of a list."""

import re
from collections import Counter

import six

WORD = re.compile(r"\w+(?:['’]\w+)*", re.UNICODE)


class AlgorithmError(Exception):
    """What callers see as `error.error_type`."""

    error_type = "InputError"


def count(text):
    return dict(Counter(word.lower() for word in WORD.findall(text)).most_common())


# API calls will begin at the apply() method, with the request body passed as 'input'
def apply(input):
    if isinstance(input, six.string_types):
        return count(input)
    if isinstance(input, (bytes, bytearray)):
        return count(six.ensure_text(bytes(input), errors="replace"))
    if isinstance(input, list) and all(isinstance(text, six.string_types) for text in input):
        return [count(text) for text in input]
    raise AlgorithmError("send a text, or a list of texts")
