"""From one probability of speech every 32 ms to stretches of speech, in seconds. Pure."""

#: A stretch begins at this probability …
BEGINS_AT = 0.5
#: … and ends only below this one, so that a value wavering around one of them does not cut a word in two.
ENDS_BELOW = 0.35
#: A pause shorter than this lies inside a sentence.
MIN_PAUSE_S = 0.1
#: A click or a cough is shorter than a word.
MIN_SPEECH_S = 0.25
#: The first and last consonants are quieter than what the net waits for.
PADDING_S = 0.03


def find_segments(probabilities, step_s, duration_s):
    """[{"start", "end"}, …] in seconds, in order and not overlapping.

    Args:
        probabilities: one a step, from the start of the recording.
        step_s: length of a step.
        duration_s: length of the recording, which may end inside the last step.
    """
    spoken = [(start, min(end, duration_s)) for start, end in _stretches(probabilities, step_s)]
    spoken = [(start, end) for start, end in spoken if end - start >= MIN_SPEECH_S]
    return [
        {"start": round(start, 3), "end": round(end, 3)} for start, end in _padded(spoken, duration_s) if end > start
    ]


def _stretches(probabilities, step_s):
    start = quiet_since = None
    for number, probability in enumerate(probabilities):
        now = number * step_s
        if probability >= BEGINS_AT:
            start = now if start is None else start
            quiet_since = None
        elif start is not None and probability < ENDS_BELOW:
            quiet_since = now if quiet_since is None else quiet_since
        if quiet_since is not None and now - quiet_since >= MIN_PAUSE_S:
            yield start, quiet_since
            start = quiet_since = None
    if start is not None:
        yield start, len(probabilities) * step_s if quiet_since is None else quiet_since


def _padded(spoken, duration_s):
    """Each stretch a little longer; two that would meet share the pause between them."""
    for number, (start, end) in enumerate(spoken):
        before = spoken[number - 1][1] if number else -PADDING_S * 2
        after = spoken[number + 1][0] if number + 1 < len(spoken) else duration_s + PADDING_S * 2
        yield (
            max(0.0, start - min(PADDING_S, (start - before) / 2)),
            min(duration_s, end + min(PADDING_S, (after - end) / 2)),
        )
