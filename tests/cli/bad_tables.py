"""The mistakes, in tables by what they are made in. To add one, add an entry."""

from __future__ import annotations

import gzip
import shutil

import bad_files as spoilt
from bad_files import CSV, CSV_TASK, JSONL_TASK, LINES, OFFICIAL, TUNE, WIDE, WRITTEN_TASK, XPROMPT, changed
from bad_input import case
from bad_tokens import TOKENS

RECIPES = [
    case(
        "a key misspelt",
        "xprompt tuning.epoch=3 --out run",
        ("a known key of tuning", '"epoch"', 'did you mean "epochs"?'),
    ),
    case(
        "a key in the wrong section",
        "xprompt tuning.tokens=3 --out run",
        ("a known key of tuning", '"tokens"', 'did you mean "prompt.tokens"?'),
    ),
    case("a flag misspelt", "xprompt --los rank", ("softprune xprompt [OPTIONS]", "--los", "did you mean --loss")),
    case(
        "a flag without its value",
        "xprompt --loss",
        ("softprune xprompt [OPTIONS]", "--loss", "softprune xprompt --help"),
    ),
    case("a command misspelt", "xpromt", ("softprune [OPTIONS] COMMAND", "xpromt", "softprune --help")),
    case("too many words", "tasks list a b", ("softprune tasks list", "(a b)", "softprune tasks list --help")),
    case(
        "a text for a number",
        TUNE + "--epochs many",
        ("tuning.epochs: a valid integer", "'many'", "set tuning.epochs=... (integer or none)"),
    ),
    case("a ratio of 0", "xprompt --token-ratios 0 --out run", ("between 0 and 1", "0", "tokens to prune")),
    case("a ratio of 1.5", "xprompt --piece-ratios 0.5,1.5 --out run", ("between 0 and 1", "1.5", "pieces to prune")),
    case("a ratio in words", "xprompt --token-ratios half --out run", ("between 0 and 1", "'half'", "tokens to prune")),
    case(
        "fewer seeds than none",
        "xprompt --fresh-seeds -1 --out run",
        ("a whole number from 0, or auto", "-1", "fresh seeds"),
    ),
    case("a dtype that isn't", TUNE + "--dtype float8", ("backbone.dtype", '"float8"', "float32")),
    case("a task misspelt", "tune --task boolqq --out run", ("a known task", '"boolqq"', 'did you mean "boolq"?')),
    case("a backbone misspelt", "tune --backbone tinny --out run", ("a known backbone", '"tinny"', '"tiny"')),
    case(
        "no such model folder", "tune --backbone ./nowhere", ("the folder of a model", "nothing at ./nowhere", "path")
    ),
    case("no such recipe", "run papr", ("a known recipe", '"papr"', 'did you mean "paper"?')),
    case("no such recipe file", "run papr.yaml", ("a recipe file", "papr.yaml: No such file", "check its path")),
    case(
        "a recipe that is a folder", "run thesis", ("a recipe file that can be read", "thesis: Is a directory", "path")
    ),
    case("a recipe that isn't YAML", "run r.yaml", ("as YAML", "line 1", "fix"), files=changed(r_yaml="kind: [tune\n")),
    case(
        "a task for a recipe",
        "run mood.yaml",
        ("a recipe", "a task in mood.yaml", "softprune xprompt --task mood.yaml"),
    ),
    case(
        "a prompt file without its init",
        "xprompt --prompt-file p.npy --out run",
        ("prompt.file: no value where init is vocabulary", "'p.npy'", "add --init file (prompt.init=file), or leave"),
    ),
    case(
        "a first text without its init",
        "xprompt --init-text words --out run",
        ("prompt.text: no value", "'words'", "add --init text (prompt.init=text), or leave prompt.text out"),
    ),
    case(
        "a margin without its objective",
        "tune selection.within=0.1 --out run",
        ("selection.within: no value", "0.1", "add --objective smallest_within (selection.objective=smallest_within)"),
    ),
    case("an empty recipe", "run r.yaml", ("a mapping of keys", "nothing", "kind: xprompt"), files=changed(r_yaml="")),
    case("a recipe that lists", "run r.yaml", ("a mapping", "list", "kind: xprompt"), files=changed(r_yaml="- a\n")),
    case(
        "a recipe that isn't UTF-8",
        "run r.yaml",
        ("a recipe file in UTF-8", "byte 0xe9 in r.yaml", "iconv -f windows-1252"),
        files=changed(r_yaml="kind: tune # caf\xe9\n".encode("latin-1")),
    ),
    case(
        "an executor and a family that aren't",
        "run r.yaml --out run",
        ("backbone.family", '"decoder"', "seq2seq"),
        ("executor", '"slurm"', "in-process"),
        files=changed(r_yaml="executor: slurm\nbackbone: {family: decoder}\n"),
        header="2 mistakes in recipe r.yaml",
    ),
    case(
        "mistakes of every kind at once",
        "xprompt oops --loss rnk --epochs 0 --task cbb --backbone tinny --out run",
        ("key=value", '"oops"', "tuning.epochs=5"),
        ("tuning.epochs: greater than or equal to 1", "0", "passes"),
        ("tuning.loss", '"rnk"', '"rank"'),
        ("a known backbone", '"tinny"', '"tiny"'),
        ("a known task", '"cbb"', '"cb"'),
        header="5 mistakes in the flags",
    ),
]

BACKBONES = [
    case(
        "S that doesn't divide H",
        XPROMPT + "--pieces 5",
        ("divide H = 32", "5", "prompt.pieces to one of 1, 2, 4, 8, 16, 32"),
    ),
    case(
        "a prompt beyond the positions",
        TUNE + "--tokens 120",
        ("128 positions", "120 prompt tokens", "prompt.tokens to 112 at most"),
    ),
    case(
        "likelihood for a sentence model", TUNE + "--loss likelihood", ("tuning.loss", "likelihood", "tuning.loss=rank")
    ),
    case(
        "generation by a sentence model", TUNE + "task.match=generate", ("task.match", "sentence", "task.match=score")
    ),
    case(
        "labels where each example has its own",
        "tune --task copa --data copa --backbone <sentence> --init labels --out run",
        ("the same for every example", "prompt.init=labels", "another prompt.init"),
        prepare=lambda folder, _: shutil.copytree(OFFICIAL / "copa", folder / "copa"),
    ),
    case("a device that isn't there", TUNE + "--device cuda", ("a device of this machine", "cuda", "--device cpu")),
    case("a device without numbers", TUNE + "--device meta", ("a device of this machine", "meta", "--device cpu")),
    case(
        "a device that is no device",
        TUNE + "--device gpu",
        ("a device: auto, cpu, cuda, cuda:1 or mps", '"gpu"', "correct --device"),
    ),
    case("a GPU without a number", TUNE + "--device cuda:x", ("a device: auto, cpu", '"cuda:x"', "correct --device")),
    case(
        "a tokenizer without a vocabulary",
        "tune --task mood.yaml --backbone model --init uniform --out run",
        ("a tokenizer that knows words", "tokenizer is empty or broken", "copy or download"),
        prepare=lambda folder, models: spoilt.wordless(shutil.copytree(models("gpt2"), folder / "model")),
    ),
    case(
        "everything that data and backbone say",
        XPROMPT + "--pieces 5 --device cuda --loss likelihood --data nowhere",
        ("a folder with the data of mood", "nowhere", "--data"),
        ("a device", "cuda", "--device cpu"),
        ("divide H", "5", "one of 1, 2"),
        ("tuning.loss", "likelihood", "tuning.loss=rank"),
        header="4 mistakes in recipe for this data and backbone",
    ),
    case(
        "a model without config",
        "tune --task mood.yaml --backbone model --out run",
        ("config.json", "none in model", "check the path"),
        files={"model/model.safetensors": b"x"},
    ),
    case(
        "a config that isn't JSON",
        "tune --task mood.yaml --backbone model --out run",
        ("a whole model in model", "config.json", "again"),
        files={"model/config.json": "{torn", "model/model.safetensors": b"x"},
    ),
    case(
        "an architecture that nobody knows",
        "tune --task mood.yaml --backbone model --out run",
        ("an architecture that transformers knows", "frobnicator", "pip install -U transformers"),
        files={"model/config.json": '{"model_type": "frobnicator"}', "model/model.safetensors": b"x"},
    ),
    case(
        "an architecture without a family",
        "tune --task mood.yaml --backbone model --out run",
        ("whose family is known", "BertForTokenClassification", "--family seq2seq"),
        files={
            "model/config.json": '{"model_type": "bert", "architectures": ["BertForTokenClassification"]}',
            "model/model.safetensors": b"x",
        },
    ),
    case(
        "truncated weights",
        "tune --task mood.yaml --backbone model --out run",
        ("a whole model in model", "SafetensorError", "copy or download the model again"),
        prepare=lambda folder, models: spoilt.truncate(shutil.copytree(models("sentence"), folder / "model")),
    ),
    case(
        "pickled weights alone",
        "tune --task mood.yaml --backbone model --out run",
        ("weights as safetensors in model", "pickled and never loaded", "save_pretrained"),
        prepare=lambda folder, models: spoilt.pickled(shutil.copytree(models("bert"), folder / "model")),
    ),
    case(
        "a sentence module that nobody knows",
        "tune --task mood.yaml --backbone model --out run",
        ("sentence modules among", "LSTM", "--family masked"),
        prepare=lambda folder, models: spoilt.other_module(shutil.copytree(models("sentence"), folder / "model")),
    ),
    case(
        "a hub name that can't be reached",
        "tune --task mood.yaml --backbone someone/nothing --out run",
        ("a hub name that can be reached", '"someone/nothing"', "check the name and the network"),
    ),
]

DATA = [
    case(
        "a template of a field that isn't",
        TUNE,
        ("fields that exist in `template` (text)", "{txt}", "correct the name"),
        files=changed(mood_yaml=JSONL_TASK.replace("{text} .", "{txt} .")),
    ),
    case(
        "an unknown key of a task",
        TUNE,
        ("known", "metrics", 'did you mean "metric"?'),
        files=changed(mood_yaml=JSONL_TASK + "metrics: accuracy\n"),
    ),
    case("no such task file", TUNE + "--task nowhere.yaml", ("a task YAML", "nowhere.yaml", "check its path")),
    case(
        "an unknown label",
        TUNE,
        ("a label out of good, bad", "train.jsonl, line 5", "correct the label"),
        files=changed(train_jsonl=LINES + '{"text": "x", "label": "so"}\n'),
    ),
    case("an empty file", TUNE, ("train", "train.jsonl", "again"), files=changed(train_jsonl="")),
    case(
        "a line cut off",
        TUNE,
        ("one JSON object per line", "train.jsonl, line 4", "fix that line"),
        files=changed(train_jsonl=LINES[:-9]),
    ),
    case(
        "an archive cut off",
        "tune --task mood.yaml --backbone <sentence> --out run --data archive",
        ("gzip archive at", "ended before", "again"),
        files={"archive/train.jsonl.gz": gzip.compress(LINES.encode())[:-12], "archive/validation.jsonl": LINES},
    ),
    case(
        "a task in UTF-16",
        TUNE,
        ("a task YAML in UTF-8", "byte 0xff in mood.yaml", "iconv -f utf-16 "),
        files=changed(mood_yaml=JSONL_TASK.encode("utf-16")),
    ),
    case(
        "a file that isn't UTF-8",
        TUNE,
        ("UTF-8", "train.jsonl, line 1", "iconv"),
        files=changed(train_jsonl='{"text": "caf\xe9", "label": "good"}\n'.encode("latin-1")),
    ),
    case(
        "a list for a text",
        TUNE,
        ("text in text", "train.jsonl, line 1", "fix that value"),
        files=changed(train_jsonl='{"text": [1, 2], "label": "good"}\n'),
    ),
    case(
        "a column that is missing",
        TUNE,
        ("the columns text, label", "train.jsonl, line 1; its columns are text, mood", "rename the column"),
        files=changed(train_jsonl='{"text": "a", "mood": "good"}\n'),
    ),
    case(
        "a column misspelt",
        TUNE,
        (
            "the columns text, kategorie",
            'no "kategorie"',
            'did you mean "category"? rename the column, or map it under',
        ),
        files={
            "mood.yaml": JSONL_TASK + "gold: kategorie\n",
            "train.jsonl": LINES.replace("label", "category"),
            "validation.jsonl": LINES.replace("label", "category"),
        },
    ),
    case(
        "another task's data",
        "tune --task rte --data others --backbone <sentence> --out run",
        (
            "the data of rte (the columns ",
            f'others doesn\'t seem to hold them: no "premise" in others/train.csv, line 2; its columns are '
            f"{'x' * 30}..., b, c, d, e, f, g, h and 2 more",
            "pass --data with the folder of rte, or name the task",
        ),
        files=dict.fromkeys(("others/train.csv", "others/validation.csv"), f"{'x' * 31},{WIDE}\n0,{WIDE}\n"),
    ),
    case(
        "a CSV row that is short",
        TUNE,
        ("2 values (text, label)", "train.csv, line 6", "double quotes"),
        files={"mood.yaml": CSV_TASK, "train.csv": CSV + "short\n", "validation.csv": CSV},
    ),
    case("no such data folder", TUNE + "--data nowhere", ("a folder with the data", "nowhere", "--data FOLDER")),
    case("a file for a data folder", TUNE + "--data train.jsonl", ("a folder", "train.jsonl", "--data FOLDER")),
    case("a data folder of others", TUNE + "--data thesis", ("the files of mood", "chapter.txt", "--data")),
    case("one shot", TUNE + "--shots 1", ("at least two training examples", "1", "shots")),
]

FOLDERS = [
    case("a path without end", f"run quick.yaml --out {'x' * 300}", ("that the system takes", "too long", "shorten")),
    case(
        "a model's path without end", f"tune --backbone {'x' * 300}", ("that the system takes", "too long", "shorten")
    ),
    case("a name that isn't UTF-8", "tune --data caf\udce9", ("in UTF-8", "caf\\udce9", "rename that file")),
    case("a run below a file", "run quick.yaml --out train.jsonl/run", ("a folder", "a regular file", "another --out")),
    case(
        "a run in a folder of others", "run quick.yaml --out thesis", ("a new folder", "chapter.txt", "another --out")
    ),
    case(
        "a run in another recipe's",
        "run quick.yaml seed=5 --out done",
        ("the recipe that done was begun with", "seed: 0 there, 5 now", "such as --out done-2, or go back"),
    ),
    case("a report of no run", "report thesis", ("the folder of a run", "no run.json in thesis", "--out")),
    case("a report of nothing", "report nowhere", ("the folder of a run", "nowhere", "--out")),
    case("runs of nothing", "runs nowhere", ("a folder that holds runs", "nowhere is no folder", "--out")),
    case(
        "a report of a run.json cut off",
        "report torn",
        ("a run.json as softprune writes it", "run.json", "restore it from a copy"),
        files={"torn/run.json": '{"schema": 1, "kind'},
    ),
]

USE = [
    case(
        "rows that aren't there",
        "predict done --input rows.jsonl --out new.jsonl",
        ("an input file", "no file rows.jsonl", "correct --input"),
    ),
    case(
        "rows without a column",
        "predict done --input rows.jsonl --out new.jsonl",
        ("the columns text", 'no "text" in rows.jsonl, line 1', "rename the column"),
        files=changed(rows_jsonl='{"body": "a"}\n'),
    ),
    case(
        "rows cut off",
        "predict done --input rows.jsonl --out new.jsonl",
        ("one JSON object per line", "rows.jsonl, line 5", "fix that line"),
        files=changed(rows_jsonl=LINES + '{"text": "a'),
    ),
    case(
        "answers over a file",
        "predict done --input train.jsonl --out validation.jsonl",
        ("a new output file", "validation.jsonl exists already", "--force"),
    ),
    case(
        "no ticket",
        "predict thesis --input train.jsonl --out new.jsonl",
        ("a ticket folder", "no ticket.json in thesis", "check the path"),
    ),
    case(
        "neither run nor prompts",
        "predict --input train.jsonl --out new.jsonl",
        ("a run, or several as --prompts", "neither", "softprune predict RUN --input FILE"),
    ),
    case(
        "a format that isn't",
        "export done --format onnx --out new",
        ("softprune export", "Invalid value for '--format': 'onnx' is not one of", "--help"),
    ),
    case(
        "a count in words",
        "tasks show demo -n two",
        ("tasks show", "'-n': a valid integer", "--help"),
    ),
    case(
        "peft for a sentence model",
        "export done --format peft --out new",
        ("a seq2seq or causal backbone", "a sentence backbone", "--format safetensors"),
    ),
    case(
        "an export over files",
        "export done --format safetensors --out thesis",
        ("a new or an empty folder", "chapter.txt", "another --out"),
    ),
    case(
        "an export of no run",
        "export thesis --format safetensors --out new",
        ("a ticket folder", "no ticket.json in thesis", "check the path"),
    ),
    case(
        "an import of nothing",
        "import nowhere.npy --out new.safetensors",
        ("a prompt file", "no file nowhere.npy", "check its path"),
    ),
    case(
        "an import of a text",
        "import mood.yaml --out new.safetensors",
        ("a readable prompt file", "mood.yaml", "save it again"),
    ),
    case(
        "a table of no file", "tasks new nowhere.csv", ("one example per row", "no file nowhere.csv", "check the path")
    ),
    case(
        "a column to write that isn't there",
        "tasks new train.jsonl --target labell",
        ("a known column", '"labell"', 'did you mean "label"?'),
    ),
    case(
        "a label and a text to write",
        "tasks new train.jsonl --target text --label label",
        ("a label to choose, or a text to write", "--label label and --target text", "leave one of them out"),
    ),
    case(
        "texts for a backbone that doesn't write",
        TUNE,
        ("a backbone that writes text (seq2seq or causal), for mood", "doesn't generate", "tiny-seq2seq"),
        files=changed(mood_yaml=WRITTEN_TASK),
    ),
    case(
        "texts with answers to choose from",
        TUNE,
        ("`target` (a text to write) or `answers`", "good, bad", "remove one of them"),
        files=changed(mood_yaml=WRITTEN_TASK + "answers: [good, bad]\n"),
    ),
    case(
        "texts ranked",
        "tune --task mood.yaml --backbone <t5> --loss rank --out run",
        ("likelihood or auto for mood", "rank", "set tuning.loss=likelihood"),
        files=changed(mood_yaml=WRITTEN_TASK),
    ),
    case("a task that isn't shown", "tasks show moood", ("a known task", '"moood"', "available")),
    case("statistics of no data", "tasks stats --data thesis", ("at least one task", "none in thesis", "--data")),
    case(
        "statistics of other data", "tasks stats cb rte --data thesis", ("data of cb, rte", "none in thesis", "--data")
    ),
    case("statistics of a task that isn't", "tasks stats cbb", ("a known task", '"cbb"', 'did you mean "cb"')),
]

CASES = [*RECIPES, *BACKBONES, *DATA, *FOLDERS, *USE, *TOKENS]
