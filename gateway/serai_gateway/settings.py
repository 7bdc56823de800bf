"""Settings of a gateway worker: read once at the edge, passed in, never changed."""

from dataclasses import dataclass
from pathlib import Path

#: Longest input and longest result of a synchronous call. Algorithmia's limit; larger data belongs in a collection.
MAX_BODY_BYTES = 10 * 1024 * 1024

#: Longest a synchronous call may take, and what it may take when the caller does not say. Algorithmia's figures.
MAX_TIMEOUT_S = 3000.0
DEFAULT_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Settings:
    """What a gateway worker needs to know."""

    home: Path
    public_url: str = "http://127.0.0.1:8000"

    @property
    def metrics_dir(self) -> Path:
        return self.run_dir / "metrics"

    @property
    def run_dir(self) -> Path:
        return self.home / "run"
