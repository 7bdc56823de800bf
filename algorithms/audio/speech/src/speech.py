"""Where does somebody speak? Silero's voice activity detector over a recording."""

import numpy as np
import segments
import wav
from resample import resample

import serai

#: Ten minutes: about two seconds of work.
MAX_SECONDS = 600
RATE = 16_000
#: The net looks at 32 ms at a time …
STEP = 512
#: … and the 4 ms before them.
CONTEXT = 64
#: Steps sent at once, about 16 s: each run crosses a socket, and what travels stays near 1 MB.
STEPS_A_RUN = 512

_model = serai.model("silero")


def apply(input):
    samples, rate = wav.read(input, MAX_SECONDS)
    duration = len(samples) / rate
    spoken = probabilities(resample(samples, rate, RATE))
    return {"segments": segments.find_segments(spoken, STEP / RATE, duration), "duration": round(duration, 3)}


def probabilities(samples):
    """How likely each 32 ms of `samples` (16 kHz) is speech, as a list of floats."""
    windows = to_windows(samples)
    state = {"h": np.zeros((1, 1, 128), np.float32), "c": np.zeros((1, 1, 128), np.float32)}
    found = []
    for first in range(0, len(windows), STEPS_A_RUN):
        got = _model.run({"input": windows[first : first + STEPS_A_RUN], **state})
        found += got["speech_probs"].tolist()
        state = {"h": got["hn"], "c": got["cn"]}  # the net remembers what it has heard
    return found


def to_windows(samples):
    """[steps, 64 + 512]: each step behind the end of the one before, silence before the first and after the last."""
    steps = -(-len(samples) // STEP)
    padded = np.zeros(CONTEXT + steps * STEP, dtype=np.float32)
    padded[CONTEXT : CONTEXT + len(samples)] = samples
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + STEP)[::STEP])
