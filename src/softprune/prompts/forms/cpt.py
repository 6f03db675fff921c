"""Context-aware prompt tuning: a prompt of labelled demonstrations, each of whose tokens may move a little.

    p_i = e_i + d_i,  norm(d_i) <= eps,  d_i = 0 for the tokens of labels

Blau et al., "Context-aware Prompt Tuning: Advancing In-Context Learning with Adversarial Methods", arXiv 2410.17222,
section 3. e `[P, H]` are the embeddings of demonstrations with their labels; d `[P, H]` is trained from 0, PH numbers,
by projected gradient descent: whatever leaves its ball is put back on it. The loss has a term for every label: of the
example's own, and of the demonstrations' as a causal model predicts them within the prompt, the nearer to the example
the heavier:

    loss = (sum_t CE_t + sum_k decay^k sum_t CE_kt) / (number of these tokens)

with k = 1 for the last demonstration. peft's `CPTEmbedding` is the same where inputs and template have one radius.
Other families predict nothing within a prompt, and learn from the example's own label. AdamW.
"""

from __future__ import annotations

import torch

from softprune.prompts.forms.base import Form, Labels

DECAY = 0.95


class ContextAware(Form):
    """See the module's docstring."""

    stored = ("ids_KP", "turns_KP")

    def __init__(
        self, start_KPH: torch.Tensor, ids_KP: torch.Tensor, turns_KP: torch.Tensor, radius: float, scale: float
    ) -> None:
        """Demonstrations by their embeddings, of an RMS of `scale`, and token ids; `radius` is that of a token's ball.

        `turns_KP` is 0 for a token that may move, and k for one of the label of the demonstration that is the k-th from
        the end.
        """
        self.radius = radius
        fixed = {"start_KPH": start_KPH.clone(), "ids_KP": ids_KP, "turns_KP": turns_KP}
        super().__init__({"moves_KPH": torch.zeros_like(start_KPH)}, {"moves_KPH": scale}, fixed)

    def produce(self) -> torch.Tensor:
        """`[K, P, H]`, every move within its ball from now on."""
        moves_KPH = self.trained["moves_KPH"]
        with torch.no_grad():
            length_KP1 = moves_KPH.norm(dim=-1, keepdim=True)
            moves_KPH.mul_(self.radius / length_KP1.clamp(min=self.radius))
        may_move_KP1 = (self.fixed["turns_KP"] == 0)[..., None]
        return self.fixed["start_KPH"] + moves_KPH * may_move_KP1

    def labels(self) -> Labels | None:
        """The demonstrations' labels; a token in the first place has nothing to be predicted from."""
        turns_KP = self.fixed["turns_KP"].clone()
        turns_KP[:, 0] = 0
        count_K = (turns_KP > 0).sum(1)
        most = int(count_K.max())
        if most == 0:
            return None
        # Labels first, in their order: a stable sort of whether a token is none.
        places_KM = (turns_KP == 0).long().argsort(dim=1, stable=True)[:, :most]
        turns_KM = turns_KP.gather(1, places_KM)
        weights_KM = torch.where(turns_KM > 0, DECAY ** turns_KM.to(self.fixed["start_KPH"].dtype), 0.0)
        return Labels(places_KM.clamp(min=1), self.fixed["ids_KP"].gather(1, places_KM), weights_KM, count_K)
