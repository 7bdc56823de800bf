"""The memory ledger: every byte of a device's budget is free, reserved or resident. Pure.

    reserve ──▶ commit ──▶ lease … unlease ──▶ release
       '─────────────────────────────────────────▲

A reservation is a guess; `commit` replaces it by what was measured, which may be more than there was room for. Then
`free` is negative and the owner evicts until it is not.
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
        """Model to bytes, for reading."""
        return self._resident

    def leases(self, model: str) -> int:
        return self._leases.get(model, 0)

    def reserve(self, model: str, num_bytes: int) -> None:
        if model in self._reserved or model in self._resident:
            raise LedgerError(f"{model} already has memory")
        if not 0 <= num_bytes <= self.free:
            raise LedgerError(f"{num_bytes} bytes reserved for {model} with {self.free} free")
        self._reserved[model] = num_bytes
        self._reserved_bytes += num_bytes

    def commit(self, model: str, measured_bytes: int) -> None:
        """The load is done: its reservation becomes what it really takes."""
        if model not in self._reserved:
            raise LedgerError(f"{model} was committed without a reservation")
        self._reserved_bytes -= self._reserved.pop(model)
        self._resident[model] = measured_bytes
        self._resident_bytes += measured_bytes

    def lease(self, model: str) -> None:
        if model not in self._resident:
            raise LedgerError(f"{model} was leased without being resident")
        self._leases[model] = self._leases.get(model, 0) + 1

    def unlease(self, model: str) -> None:
        left = self._leases.get(model, 0) - 1
        if left < 0:
            raise LedgerError(f"{model} was returned more often than it was leased")
        if left:
            self._leases[model] = left
        else:
            del self._leases[model]

    def release(self, model: str) -> int:
        """The device says that the model is gone (or was never loaded). How many bytes that freed."""
        if self._leases.get(model):
            raise LedgerError(f"{model} was released while leased")
        if model in self._reserved:
            freed = self._reserved.pop(model)
            self._reserved_bytes -= freed
        else:
            freed = self._resident.pop(model)
            self._resident_bytes -= freed
        return freed

    def clear(self) -> None:
        """The device's process is gone, and all that it held with it."""
        for of in (self._reserved, self._resident, self._leases):
            of.clear()
        self._reserved_bytes = self._resident_bytes = 0

    def check_integrity(self) -> None:
        """Recount everything. Cheap enough to run whenever the pool is idle."""
        if self._reserved_bytes != sum(self._reserved.values()) or self._resident_bytes != sum(self._resident.values()):
            raise LedgerError("the sums of the ledger do not match its entries")
        if self.budget != self.free + self._reserved_bytes + self._resident_bytes:
            raise LedgerError("budget is not free + reserved + resident")
        if any(model not in self._resident or count < 1 for model, count in self._leases.items()):
            raise LedgerError("a lease without a resident model")
        if self._reserved.keys() & self._resident.keys():
            raise LedgerError("a model is both reserved and resident")
