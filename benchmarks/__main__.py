"""`python -m benchmarks [NAME …] [--rounds N] [--seconds S]`."""

import argparse

from benchmarks import c1, c3

_ALL = {"C1": c1.run, "C3": c3.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure Serai beside its limits.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default all): {', '.join(_ALL)}")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; medians are printed (default 3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement (default 4)")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in _ALL]
    if unknown:
        parser.error(f"no benchmark called {', '.join(unknown)}; there are {', '.join(_ALL)}")
    for name in given.names or _ALL:
        _ALL[name](rounds=given.rounds, seconds=given.seconds)


if __name__ == "__main__":
    main()
