"""The memory ledger: every byte of a device's budget is free, reserved or resident. Pure.

    reserve ──▶ commit ──▶ lease … unlease ──▶ release
       '─────────────────────────────────────────▲

Entries have names: a model's key, "batch 7" for what a run needs beside the weights, "worker …" for a runtime. A
reservation is what was measured before, or a guess; `commit` replaces it by what is measured now, which may be more
than there was room for. Then `free` is negative and the owner evicts until it is not.
"""


class LedgerError(AssertionError):
    """The pool's own account would become wrong."""


class Ledger:
    __slots__ = ("_leases", "_reserved", "_reserved_bytes", "_resident", "_resident_bytes", "budget")

    def __init__(self, budget_bytes: int) -> None:
        self.budget = budget_bytes
        self._reserved: dict[str, int] = {}
        self._resident: dict[str, int] = {}
        self._leases: dict[str, int] = {}
        self._reserved_bytes = 0
        self._resident_bytes = 0

    @property
    def free(self) -> int:
        """Bytes nobody has; negative while what was loaded turned out larger than it was thought to be."""
        return self.budget - self._reserved_bytes - self._resident_bytes

    @property
    def reserved_bytes(self) -> int:
        return self._reserved_bytes

    @property
    def resident_bytes(self) -> int:
        return self._resident_bytes

    @property
    def resident(self) -> dict[str, int]:
        """Name to bytes, for reading."""
        return self._resident

    def holds(self, name: str) -> bool:
        return name in self._reserved or name in self._resident

    def leases(self, name: str) -> int:
        return self._leases.get(name, 0)

    def reserve(self, name: str, num_bytes: int) -> None:
        if self.holds(name):
            raise LedgerError(f"{name} already has memory")
        if not num_bytes >= 0 or num_bytes > max(self.free, 0):
            raise LedgerError(f"{num_bytes} bytes reserved for {name} with {self.free} free")
        self._reserved[name] = num_bytes
        self._reserved_bytes += num_bytes

    def commit(self, name: str, measured_bytes: int | None) -> None:
        """It is there: its reservation becomes what it really takes. None: what was reserved, since it goes at once."""
        if name not in self._reserved:
            raise LedgerError(f"{name} was committed without a reservation")
        reserved_bytes = self._reserved.pop(name)
        self._reserved_bytes -= reserved_bytes
        self._resident[name] = reserved_bytes if measured_bytes is None else measured_bytes
        self._resident_bytes += self._resident[name]

    def correct(self, name: str, measured_bytes: int) -> None:
        """What is resident was measured again."""
        if name not in self._resident:
            raise LedgerError(f"{name} was corrected without being resident")
        self._resident_bytes += measured_bytes - self._resident[name]
        self._resident[name] = measured_bytes

    def lease(self, name: str) -> None:
        if name not in self._resident:
            raise LedgerError(f"{name} was leased without being resident")
        self._leases[name] = self._leases.get(name, 0) + 1

    def unlease(self, name: str) -> None:
        left = self._leases.get(name, 0) - 1
        if left < 0:
            raise LedgerError(f"{name} was returned more often than it was leased")
        if left:
            self._leases[name] = left
        else:
            del self._leases[name]

    def release(self, name: str) -> int:
        """The device says that it is gone (or never came). How many bytes that freed."""
        if self._leases.get(name):
            raise LedgerError(f"{name} was released while leased")
        if name in self._reserved:
            freed = self._reserved.pop(name)
            self._reserved_bytes -= freed
        else:
            freed = self._resident.pop(name)
            self._resident_bytes -= freed
        return freed

    def lost(self, name: str) -> None:
        """Its process has ended: leases and bytes are gone with it, whatever there was."""
        self._leases.pop(name, None)
        if self.holds(name):
            self.release(name)

    def check_integrity(self) -> None:
        """Recount everything. Cheap enough to run whenever the pool is idle."""
        if self._reserved_bytes != sum(self._reserved.values()) or self._resident_bytes != sum(self._resident.values()):
            raise LedgerError("the sums of the ledger do not match its entries")
        if self.budget != self.free + self._reserved_bytes + self._resident_bytes:
            raise LedgerError("budget is not free + reserved + resident")
        if any(name not in self._resident or count < 1 for name, count in self._leases.items()):
            raise LedgerError("a lease of what is not resident")
        if self._reserved.keys() & self._resident.keys():
            raise LedgerError("something is both reserved and resident")
