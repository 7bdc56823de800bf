"""Change of sample rate by a windowed sinc, in NumPy alone."""

from math import ceil, gcd

import numpy as np

#: Zero crossings of the sinc on either side; with Blackman's window, what would alias is 70 dB down.
CROSSINGS = 32
#: Middle of the filter's slope, relative to the lower of the two Nyquist rates.
ROLLOFF = 0.92


def resample(samples, rate, target):
    """float32 samples at `rate` as float32 samples at `target`; both in whole samples a second."""
    if rate == target or not len(samples):
        return samples
    shared = gcd(rate, target)
    up, down = target // shared, rate // shared
    cutoff = min(1.0, up / down) * ROLLOFF
    half = ceil(CROSSINGS / cutoff)
    count = len(samples) * up // down
    padded = np.pad(samples.astype(np.float32), (half, half + down))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half)
    result = np.empty(count, dtype=np.float32)
    # Output number phase + k * up lies at input position (phase * down / up) + k * down: one filter a phase.
    for phase in range(min(up, count)):
        first, fraction = divmod(phase * down, up)
        rows = result[phase::up]
        rows[:] = windows[first + 1 :: down][: len(rows)] @ _filter(fraction / up, half, cutoff)
    return result


def _filter(fraction, half, cutoff):
    """Weights of the 2 * half samples around a point that lies `fraction` of a sample past the half-th."""
    distance = np.arange(1 - half, half + 1) - fraction
    turn = np.cos(np.pi * distance / half)
    window = 0.34 + 0.5 * turn + 0.16 * turn * turn  # Blackman, its second cosine written as a square
    weights = np.sinc(distance * cutoff) * window
    return (weights / weights.sum()).astype(np.float32)
