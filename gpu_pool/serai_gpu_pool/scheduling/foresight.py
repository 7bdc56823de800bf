"""Models that are called by the clock are loaded shortly before. Pure."""

from serai_gpu_pool.prediction import Predictor
from serai_gpu_pool.scheduling.model import Model


class Foresight:
    __slots__ = ("_predictor",)

    def __init__(self) -> None:
        self._predictor = Predictor()

    def called(self, model: Model, now: float) -> None:
        """Only models that have time to leave between two calls are looked at."""
        lead_s = model.lead_s
        if now - model.called_at > lead_s:
            self._predictor.used(model.key, lead_s, now)

    def next_due(self) -> float | None:
        return self._predictor.next_due()

    def due(self, models: dict[str, Model], now: float) -> list[Model]:
        """Those that are about to be called, as far as the clock tells."""
        return [models[key] for key in self._predictor.due(now) if key in models]
