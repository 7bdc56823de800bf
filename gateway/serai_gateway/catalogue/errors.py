"""What can go wrong between a caller and the catalogue.

CatalogueError
├── NotFound            no such thing, or none that this caller may know of
├── InvalidName         a name that is no name
├── Taken               the name belongs to somebody else
├── InUse               what still belongs to it must go first
├── LastOwner           an organization without an owner belongs to nobody
├── TooMany             a limit on how many there may be
├── AlreadyPublished    versions are immutable
├── BreaksPromise       a version changes what callers rely on by its number
├── NoRoom              the disk is full: nothing was written
├── Busy                others write for too long: nothing was written, and a later try may help
└── UnknownSchema       the database was written by a newer Serai
"""


class CatalogueError(Exception):
    """The catalogue cannot do that."""


class NotFound(CatalogueError):
    """No such thing, or none that this caller may know of: the two look alike."""


class InvalidName(CatalogueError):
    """A name that is no name."""


class Taken(CatalogueError):
    """The name belongs to somebody else."""


class InUse(CatalogueError):
    """What still belongs to it must go first."""


class LastOwner(CatalogueError):
    """An organization without an owner belongs to nobody."""


class TooMany(CatalogueError):
    """A limit on how many there may be."""


class AlreadyPublished(CatalogueError):
    """This build or this number is published already, and versions are immutable."""


class BreaksPromise(CatalogueError):
    """A version changes what callers rely on by its number; another number may."""


class NoRoom(CatalogueError):
    """The disk is full: nothing was written."""


class Busy(CatalogueError):
    """Others write for too long: nothing was written, and a later try may help."""


class UnknownSchema(CatalogueError):
    """The database was written by a newer Serai."""
