"""The peer: peft's PromptTuning under transformers' Trainer, as a careful user would set it up.

Weights in our dtype (no autocast), prompt float32 as peft keeps it, no dropout, constant rate, Adafactor with our
arguments, one prompt (`num_transformer_submodules=1`), pretokenised examples in memory, a collator that pads to the
longest of a batch, no workers; no logging, saving, evaluation, clipping by norm, or look-out for NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from ours import BATCH, DECAY, RATE
from peft import PromptTuningConfig, TaskType, get_peft_model
from timing import Spent, spent
from transformers import Adafactor, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from softprune.types import Encoded

# Trainer's sampling, and the attention: torch's fused one where transformers takes that, or plain products.
VARIANTS: dict[str, tuple[str, str | None]] = {
    "random": ("random", None),
    "grouped": ("group_by_length", None),
    "random, plain attention": ("random", "eager"),
    "grouped, plain attention": ("group_by_length", "eager"),
}
AS_TRANSFORMERS_CHOOSES = ("random", "grouped")
EVALUATED = 64  # examples at a time, forward passes only
_CLASSES = {
    "seq2seq": ("AutoModelForSeq2SeqLM", TaskType.SEQ_2_SEQ_LM),
    "causal": ("AutoModelForCausalLM", TaskType.CAUSAL_LM),
    "sentence": ("AutoModel", TaskType.FEATURE_EXTRACTION),
}
TEMPERATURE = 0.05


class PeerClock(TrainerCallback):
    """Notes when the first epoch began and the last one ended, and counts steps."""

    def __init__(self) -> None:
        self.begun: Spent | None = None
        self.ended, self.steps = Spent.now(), 0

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """The clock starts: everything is built by now."""
        self.begun = self.begun or Spent.now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """A step ended."""
        self.steps += 1

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """An epoch ended, which evaluates and saves nothing."""
        self.ended = Spent.now()


class _Trainer(Trainer):  # type: ignore[misc]
    """Trainer that keeps the losses which it computes anyway."""

    def __init__(self, peer: Peer, **settings: Any) -> None:
        super().__init__(**settings)
        self.peer = peer
        self.losses: list[torch.Tensor] = []

    def compute_loss(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        """A language model's own loss; for a sentence encoder, ours written by hand."""
        if self.peer.family != "sentence":
            return super().compute_loss(model, inputs, *rest, **more)
        return self.peer.sentence_loss(model, inputs)

    def training_step(self, *inputs: Any, **more: Any) -> torch.Tensor:
        """A step, its loss noted."""
        loss: torch.Tensor = super().training_step(*inputs, **more)
        self.losses.append(loss)
        return loss


class Peer:
    """One prompt that peft trains.

    Args:
        folder: the saved model.
        family: seq2seq, causal or sentence.
        dtype: of the weights.
        start_PH: where the prompt starts.
        head: what follows a sentence encoder: states and mask to embeddings `[B, D]`.
    """

    def __init__(
        self,
        folder: str,
        family: str,
        dtype: torch.dtype,
        start_PH: torch.Tensor,
        head: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        name, task = _CLASSES[family]
        transformers.utils.logging.disable_progress_bar()
        model = getattr(transformers, name).from_pretrained(folder, dtype=dtype)
        model.config.use_cache = False
        self.chosen = model.config._attn_implementation
        settings = PromptTuningConfig(
            task_type=task,
            num_virtual_tokens=start_PH.shape[0],
            num_transformer_submodules=1,
            token_dim=start_PH.shape[1],
        )
        self.family, self.pad, self.head = family, int(model.config.pad_token_id or 0), head
        self.model = get_peft_model(model, settings).to("cuda" if torch.cuda.is_available() else "cpu")
        self.prompt = self.model.prompt_encoder["default"].embedding.weight
        self.prompt.data.copy_(start_PH)
        self.rate = RATE * float(start_PH.std())
        self.answers_AD: torch.Tensor | None = None

    def train(
        self, encoded: Sequence[Encoded], sampling: str, seed: int = 0, epochs: int = 1
    ) -> tuple[PeerClock, list[float]]:
        """Train over the examples: the clock, and the losses of all steps."""
        if self.family == "sentence" and self.answers_AD is None:
            self.answers_AD = self._embed(encoded[0].answer_ids)
        optimiser = Adafactor(
            [self.prompt],
            lr=self.rate,
            scale_parameter=False,
            relative_step=False,
            warmup_init=False,
            clip_threshold=1.0,
            weight_decay=DECAY,
        )
        clock = PeerClock()
        with TemporaryDirectory() as out:
            trainer = _Trainer(
                self,
                model=self.model,
                args=_arguments(out, sampling, seed, epochs),
                train_dataset=[self._row(example) for example in encoded],
                data_collator=self._collate,
                optimizers=(optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _: 1.0)),
                callbacks=[clock],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return clock, [float(loss) for loss in trainer.losses]

    def evaluate(self, encoded: Sequence[Encoded]) -> Spent:
        """What Trainer takes to find the loss on some examples, and nothing but the loss."""
        with TemporaryDirectory() as out:
            trainer = _Trainer(
                self,
                model=self.model,
                args=_arguments(out, "random", 0, 1),
                eval_dataset=[self._row(example) for example in encoded],
                data_collator=self._collate,
            )
            trainer.remove_callback(PrinterCallback)
            return spent(lambda: trainer.evaluate())

    def step(self, encoded: Sequence[Encoded], sampling: str, attention: str | None = None) -> Spent:
        """What a step takes, mean over an epoch: batching, collating, both passes, the optimiser.

        Args:
            encoded: the examples.
            sampling, attention: one of `VARIANTS`.
        """
        self.attend(attention)
        clock, _ = self.train(encoded, sampling)
        assert clock.begun is not None
        return clock.ended.since(clock.begun, clock.steps)

    def attend(self, attention: str | None) -> None:
        """Read with this attention from now on; None for what transformers chose."""
        self.model.get_base_model().set_attn_implementation(attention or self.chosen)

    def sentence_loss(self, model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Cross-entropy over the cosines to the answers."""
        assert self.answers_AD is not None
        embedded_BD = self._embedded(model, inputs["input_ids"], inputs["attention_mask"], self.prompt.shape[0])
        return F.cross_entropy(embedded_BD @ self.answers_AD.T.to(embedded_BD) / TEMPERATURE, inputs["labels"])

    @torch.no_grad()
    def _embed(self, answers: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """The answers' embeddings without a prompt, `[A, D]`."""
        found = []
        for ids in answers:
            tokens = torch.tensor([ids], device=self.prompt.device)
            found.append(self._embedded(self.model.get_base_model(), tokens, torch.ones_like(tokens), 0)[0])
        return torch.stack(found)

    def _embedded(self, model: Any, ids_BN: torch.Tensor, mask_BN: torch.Tensor, prompt: int) -> torch.Tensor:
        """Embeddings of length 1, `[B, D]` in float32, of prompt and real tokens."""
        assert self.head is not None
        hidden = model(input_ids=ids_BN, attention_mask=mask_BN).last_hidden_state
        mask = torch.cat([mask_BN.new_ones(len(mask_BN), prompt), mask_BN], dim=1)
        return F.normalize(self.head(hidden, mask).float(), dim=-1)

    def _row(self, example: Encoded) -> dict[str, list[int]]:
        inputs, answer = list(example.input_ids), list(example.answer_ids[example.gold])
        if self.family == "causal":
            return {"input_ids": inputs + answer, "labels": [-100] * len(inputs) + answer}
        return {"input_ids": inputs, "labels": [example.gold] if self.family == "sentence" else answer}

    def _collate(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        lengths = np.array([len(row["input_ids"]) for row in rows])
        labels = _padded([row["labels"] for row in rows], -100)
        return {
            "input_ids": _padded([row["input_ids"] for row in rows], self.pad),
            "attention_mask": torch.from_numpy((np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)),
            "labels": labels[:, 0] if self.family == "sentence" else labels,
        }


def _padded(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
    wide = np.full((len(rows), max(map(len, rows))), filler, dtype=np.int64)
    for at, row in enumerate(rows):
        wide[at, : len(row)] = row
    return torch.from_numpy(wide)


def _arguments(out: str, sampling: str, seed: int, epochs: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=out,
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=EVALUATED,
        prediction_loss_only=True,
        train_sampling_strategy=sampling,
        seed=seed,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
    )
