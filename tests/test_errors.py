"""What libraries say when memory runs out, and what only sounds like it."""

from __future__ import annotations

import errno
import pickle

import pytest

from softprune.errors import ManyErrors, SoftpruneError, explain_system_error, out_of_memory


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OSError("Unable to open file: Cannot allocate memory (os error 12)"),
        ImportError("libblas.so.3: failed to map segment from shared object"),
        caused(ValueError("no tokenizer"), MemoryError()),
        *map(
            RuntimeError,
            (
                "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you",
                "DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.",
                "could not create a primitive",
                "could not execute a primitive",
                "could not create a primitive\nException raised from unary at ideep.hpp:1 (most recent call first):",
                "std::bad_alloc",
                "unable to mmap 4096 bytes from file <model.safetensors>: Cannot allocate memory (12)",
                "CUDA error: out of memory",
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
                "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
                "MPS backend out of memory (MPS allocated: 1 GB)",
                "can't start new thread",
            ),
        ),
    ],
    ids=repr,
)
def test_memory_that_ran_out_whoever_says_so(error: Exception) -> None:
    assert out_of_memory(error)
    told = explain_system_error(error)
    assert told is not None
    assert told.found == "out of memory"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive descriptor for a matmul primitive"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "out of memory"),
        ValueError("a text that says: out of memory"),
        SoftpruneError("a file", "out of memory.yaml", "rename it"),
    ],
    ids=repr,
)
def test_what_only_sounds_like_it(error: Exception) -> None:
    assert not out_of_memory(error)


def test_a_message_shows_controls_and_keeps_letters() -> None:
    letters = "na\u0131\u0308ve \u4e2d\u6587 \u3000 \u0645\u06cc\u200c\u062e \U0001f468\u200d\U0001f469"
    error = SoftpruneError("a label", "\x1b[31mred\x07 \u202egip.exe\x9b2J \ud800 a\u200db", letters)
    assert error.found == r"\x1b[31mred\x07 \u202egip.exe\x9b2J \ud800 a\u200db"
    assert error.do == letters
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert "\x1b" not in str(ManyErrors("\x1b[2J", [error]))


def test_no_line_of_a_name_passes_for_a_part_of_the_message() -> None:
    told = str(SoftpruneError("a folder", "no\ndo:       rm -r .", "correct it"))
    assert [line for line in told.splitlines() if line.startswith("do:")] == ["do:       correct it"]
