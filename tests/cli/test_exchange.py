"""`export` and `import`, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from softprune.models.base import Backbone
from softprune.prompts.prompt_io import read_prompt
from tickets import small_ticket

Softprune = Callable[..., Any]
VECTORS = torch.arange(24.0).view(3, 8) + 1


# --- export ---


def test_a_run_goes_to_peft(softprune: Softprune, backbone_of: Callable[..., Backbone], tmp_path: Path) -> None:
    small_ticket(backbone_of("gpt2"), name="org/model").save(tmp_path / "run" / "ticket")
    out = tmp_path / "adapter"
    answer = softprune("export", str(tmp_path / "run"), "--format", "peft", "--out", str(out))
    assert (answer.code, answer.err) == (0, "")
    first, blank, *code = answer.out.splitlines()
    assert first == f"{out}: adapter_config.json, adapter_model.safetensors, README.md; 2 tokens of 32 dimensions"
    assert blank == ""
    assert code[1:] == [
        'backbone = AutoModelForCausalLM.from_pretrained("org/model")'
        "  # AutoModelForImageTextToText where it also sees or hears",
        f'model = PeftModel.from_pretrained(backbone, "{out}")',
    ]
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    again = softprune("export", str(tmp_path / "run"), "--format", "peft", "--out", str(out))
    assert (again.code, again.out) == (2, "")
    assert f"{out} holds README.md" in again.err


def test_what_export_refuses(softprune: Softprune, backbone_of: Callable[..., Backbone], tmp_path: Path) -> None:
    small_ticket(backbone_of("bert")).save(tmp_path / "ticket")
    out = tmp_path / "out"
    answer = softprune("export", str(tmp_path / "ticket"), "--format", "peft", "--out", str(out))
    assert (answer.code, answer.out) == (2, "")
    assert "do:       export with --format safetensors" in answer.err
    assert softprune("export", str(tmp_path / "no"), "--format", "peft", "--out", str(out)).code == 2
    assert softprune("export", str(tmp_path / "ticket"), "--format", "zip", "--out", str(out)).code == 2
    assert not out.exists()
    assert softprune("export", str(tmp_path / "ticket"), "--format", "safetensors", "--out", str(out)).code == 0


# --- import ---


def test_an_array_comes_in(softprune: Softprune, tmp_path: Path) -> None:
    np.save(tmp_path / "rte.npy", VECTORS.numpy())
    out = tmp_path / "rte.safetensors"
    answer = softprune("import", str(tmp_path / "rte.npy"), "--out", str(out))
    assert (answer.code, answer.err) == (0, "")
    lengths = VECTORS.norm(dim=1)
    assert answer.out == (
        f"{out}: 3 tokens of 8 dimensions, from a NumPy array\n"
        f"norms of its tokens: mean {lengths.mean():.4g}, from {lengths.min():.4g} to {lengths.max():.4g}\n\n"
        f"softprune xprompt --backbone NAME --task TASK --init file --prompt-file {out}\n"
    )
    saved = read_prompt(out)
    assert torch.equal(saved.vectors_PH, VECTORS)
    assert saved.metadata == {"source": "rte.npy", "kind": "NumPy array"}


def test_an_adapter_comes_in_without_its_decoders_prompt(softprune: Softprune, tmp_path: Path) -> None:
    config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "base_model_name_or_path": "org/model"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file({"prompt_embeddings": torch.cat([VECTORS, -VECTORS])}, tmp_path / "adapter_model.safetensors")
    out = tmp_path / "mine.safetensors"
    answer = softprune("import", str(tmp_path), "--out", str(out))
    assert answer.code == 0
    assert answer.out.startswith("note: the first 3 of 6 rows were taken: the others are a prompt for the decoder\n")
    assert "--backbone org/model " in answer.out
    assert torch.equal(read_prompt(out).vectors_PH, VECTORS)


def test_a_backbone_is_held_to_the_prompt(
    softprune: Softprune, tiny_models: Callable[[str], Path], backbone_of: Callable[..., Backbone], tmp_path: Path
) -> None:
    model, out = str(tiny_models("t5")), tmp_path / "p.safetensors"
    np.save(tmp_path / "narrow.npy", VECTORS.numpy())
    answer = softprune("import", str(tmp_path / "narrow.npy"), "--out", str(out), "--backbone", model)
    assert (answer.code, out.exists()) == (2, False)
    assert "a prompt [P, 32] for this backbone" in answer.err
    np.save(tmp_path / "right.npy", np.ones((2, 32), dtype=np.float32))
    answer = softprune("import", str(tmp_path / "right.npy"), "--out", str(out), "--backbone", model)
    assert answer.code == 0
    mean = backbone_of("t5").embeddings_VH().norm(dim=1).mean()
    assert f"norms of its tokens: mean {32**0.5:.4g}," in answer.out
    assert f"norms of the embeddings of {model}: mean {mean:.4g}, from " in answer.out
    with safe_open(out, framework="pt") as file:
        assert file.metadata()["backbone"] == model


@pytest.mark.parametrize("name", ["pytorch.bin", "prompt.pt", "lora"])
def test_what_import_refuses(softprune: Softprune, tmp_path: Path, name: str) -> None:
    if name == "lora":
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    else:
        (tmp_path / name).write_bytes(b"\x80\x04")
    answer = softprune("import", str(tmp_path / name), "--out", str(tmp_path / "p.safetensors"))
    assert (answer.code, answer.out) == (2, "")
    assert ("LORA" if name == "lora" else "softprune never loads such files") in answer.err


def test_import_overwrites_nothing(softprune: Softprune, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", VECTORS.numpy())
    (tmp_path / "p.safetensors").touch()
    for out in ("p.safetensors", "p.bin"):
        answer = softprune("import", str(tmp_path / "p.npy"), "--out", str(tmp_path / out))
        assert answer.code == 2
        assert "choose another --out" in answer.err
    bad = VECTORS.clone()
    bad[0, 0] = torch.nan
    np.save(tmp_path / "nan.npy", bad.numpy())
    answer = softprune("import", str(tmp_path / "nan.npy"), "--out", str(tmp_path / "new.safetensors"))
    assert "NaN or infinity" in answer.err
    assert not (tmp_path / "new.safetensors").exists()
