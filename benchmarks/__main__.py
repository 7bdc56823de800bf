"""`python -m benchmarks [NAME …] [--rounds N] [--seconds S]`."""

import argparse

from benchmarks import c1, c2, c3, c4, c5, c6, c7, c8, p1, p2, r1, r2, r3, r4, r5, r6, w4

#: What there is, and how many seconds each measurement of it takes by default.
_ALL = {
    "C1": (c1.run, 4.0),
    "C2": (c2.run, 4.0),
    "C3": (c3.run, 4.0),
    "C4": (c4.run, 5.0),
    "C5": (c5.run, 0.0),
    "C6": (c6.run, 300.0),
    "C7": (c7.run, 600.0),
    "C8": (c8.run, 10.0),
    "P1": (p1.run, 4.0),
    "P2": (p2.run, 30.0),
    "R1": (r1.run, 3.0),
    "R2": (r2.run, 10.0),
    "R3": (r3.run, 6.0),
    "R4": (r4.run, 0.0),
    "R5": (r5.run, 0.0),
    "R6": (r6.run, 5.0),
    "W4": (w4.run, 30.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure Serai beside its limits.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default all): {', '.join(_ALL)}")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; medians are printed (default 3)")
    parser.add_argument("--seconds", type=float, help="length of each measurement (default 4 to 30, as it needs)")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in _ALL]
    if unknown:
        parser.error(f"no benchmark called {', '.join(unknown)}; there are {', '.join(_ALL)}")
    for name in given.names or _ALL:
        run, seconds = _ALL[name]
        run(rounds=given.rounds, seconds=given.seconds or seconds)


if __name__ == "__main__":
    main()
