"""Two optimizers as one, each for its part of the weights."""

from typing import Any

from torch.optim import AdamW, Muon, Optimizer


class MuonAndAdamW(Optimizer):
    """Steps both; groups and records of both are kept together, where checkpoints and schedules look for them."""

    def __init__(self, muon: Muon, adamw: AdamW):
        self.parts = (muon, adamw)
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def step(self, closure=None):
        loss = self.parts[0].step(closure)
        self.parts[1].step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        start = 0
        for part in self.parts:
            end = start + len(part.param_groups)
            part.param_groups, part.state, start = self.param_groups[start:end], self.state, end
