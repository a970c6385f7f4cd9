"""What the AG-CNN and its equivariant form share: the gates on three stages, and what follows them."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from galgaze.models.attention import Aggregation, AttentionGate
from galgaze.models.network import AttentionNetwork, Examination


class GatedNetwork(AttentionNetwork):
    """Gates on the first three stages, aggregated; without gates one linear layer."""

    def make_gates(
        self,
        widths: Sequence[int],
        classes: int,
        gates: int,
        normalisation: str,
        aggregation: str,
        gate_channels: int,
        gate_pooling: str,
        dropout: float,
        flat_values: int,
    ) -> None:
        """Create the gates and classifiers; `flat_values` is what the classifier reads without gates."""
        self.normalisation = normalisation
        # image pixels a pixel of each gate's map; pooling halves and drops what is left over
        self.attention_reductions = (4, 2, 1)[:gates]
        local = tuple(widths[2::-1][:gates])  # gate 1 is the deepest, on stage 3
        self.attention = nn.ModuleList(
            AttentionGate(width, widths[3], gate_channels, gate_pooling, normalisation) for width in local
        )
        # one a gate: MC dropout thins each module once a pass
        self.dropout = nn.ModuleList(nn.Dropout(dropout) for _ in range(max(gates, 1)))
        if gates:
            self.aggregation = Aggregation(aggregation, local, classes)
        else:
            self.classifier = nn.Linear(flat_values, classes)

    def judge(
        self, local: list[torch.Tensor], g: torch.Tensor, flatten: Callable[[torch.Tensor], torch.Tensor]
    ) -> Examination:
        """From the gated stages' features, deepest first, and those that gate them; `flatten` (B, D) without gates."""
        if not self.attention:
            flat = flatten(g)
            return Examination(self.classifier(self.dropout[0](flat)), [], flat)
        gathered, maps = zip(*(gate(x, g) for gate, x in zip(self.attention, local, strict=True)), strict=True)
        logits = self.aggregation([drop(vector) for drop, vector in zip(self.dropout, gathered, strict=True)])
        return Examination(logits, list(maps), torch.cat(gathered, dim=1))
