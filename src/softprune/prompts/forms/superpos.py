"""SuperPos: each prompt token is a weighted sum of the same sampled words, and the weights say of which.

    p_i = sum_j w_ij e_j,  j = 1 .. m

Sadraei Javaheri et al., "SuperPos-Prompt: Enhancing Soft Prompt Tuning of Language Models with Superposition of Multi
Token Embeddings", ENLSP 2024 (PMLR 262; arXiv 2406.05279), section 3. The weights w `[P, m]` are trained: Pm numbers,
with m = 128. Here the words' vectors e `[m, H]` stay the vocabulary's, so that the weights explain the prompt in words.

Token i starts as word i, of weight 1: the prompt starts as one of sampled words does. AdamW, whose weight decay pulls
weights, not words, to zero.
"""

from __future__ import annotations

import torch

from softprune.prompts.forms.base import Form


class Superposition(Form):
    """See the module's docstring."""

    stored = ("words_KM",)

    def __init__(self, tokens: int, words_KM: torch.Tensor, vectors_KMH: torch.Tensor) -> None:
        """Words by their ids and vectors. Where they are fewer than tokens, the first ones start several tokens."""
        count, size = words_KM.shape
        weights_PM = torch.zeros(tokens, size)
        weights_PM[torch.arange(tokens), torch.arange(tokens) % size] = 1
        trained = {"weights_KPM": weights_PM.expand(count, -1, -1).to(vectors_KMH).clone()}
        fixed = {"words_KM": words_KM, "vectors_KMH": vectors_KMH.clone()}
        super().__init__(trained, {"weights_KPM": size**-0.5}, fixed)

    def produce(self) -> torch.Tensor:
        """`[K, P, H]`."""
        return self.trained["weights_KPM"] @ self.fixed["vectors_KMH"]
