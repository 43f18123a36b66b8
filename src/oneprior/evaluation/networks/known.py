"""Which weight files are the published ones. Only under those is a distance comparable with a number in a paper.

A file is known by its SHA-256, never by its name. Each checksum below was found in public repositories that pin it; the
place is named beside it. (None of the files could be downloaded where this was written, so the list rests on those
records; the names of the Inception files carry the first 8 digits of their hash, by torch.hub's convention, and agree.)

A file that is not listed may be a later upload, one's own training, or damage. It is refused, with its hash, until the
user vouches for that hash; its distances are then named after it and not comparable.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from oneprior.core import InputError

DIGITS = 16  # hexadecimal digits that vouch for a file: 64 bits


@dataclass(frozen=True)
class Published:
    """A published weight file.

    Args:
        kind: which reader it belongs to: inception, dinov2 or clip.
        label: what its features are called in tables, before the digits of the hash.
        file: where it was published.
        source: where its checksum was found.
    """

    kind: str
    label: str
    file: str
    source: str


_REFINERS = "finegrain-ai/refiners, src/refiners/conversion/models/dinov2.py"
_HUB = "the Git LFS pointer at revision {}, as pinned in several public repositories"

PUBLISHED = {
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2": Published(
        "inception",
        "inception",
        "pt_inception-2015-12-05-6726825d.pth (mseitzer/pytorch-fid) and weights-inception-2015-12-05-6726825d.pth "
        "(toshas/torch-fidelity), the same bytes",
        "snap-research/discoscene, models/inception_model.py",
    ),
    "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9": Published(
        "dinov2", "dinov2-vits14", "dinov2_vits14_pretrain.pth (facebookresearch/dinov2)", _REFINERS
    ),
    "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73": Published(
        "dinov2", "dinov2-vitb14", "dinov2_vitb14_pretrain.pth (facebookresearch/dinov2)", _REFINERS
    ),
    "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428": Published(
        "dinov2", "dinov2-vitl14", "dinov2_vitl14_pretrain.pth (facebookresearch/dinov2)", _REFINERS
    ),
    "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3": Published(
        "dinov2", "dinov2-vitg14", "dinov2_vitg14_pretrain.pth (facebookresearch/dinov2)", _REFINERS
    ),
    "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1": Published(
        "dinov2",
        "dinov2-vits14",
        "model.safetensors (huggingface.co/facebook/dinov2-small)",
        _HUB.format("ed25f3a31f01632728cabb09d1542f84ab7b0056"),
    ),
    "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841": Published(
        "dinov2",
        "dinov2-vitb14",
        "model.safetensors (huggingface.co/facebook/dinov2-base)",
        _HUB.format("f9e44c814b77203eaa57a6bdbbd535f21ede1415"),
    ),
    "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23": Published(
        "dinov2",
        "dinov2-vitl14",
        "model.safetensors (huggingface.co/facebook/dinov2-large)",
        _HUB.format("47b73eefe95e8d44ec3623f8890bd894b6ea2d6c"),
    ),
    "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f": Published(
        "clip",
        "clip-vitb32",
        "pytorch_model.bin (huggingface.co/openai/clip-vit-base-patch32)",
        _HUB.format("3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"),
    ),
    "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb": Published(
        "clip",
        "clip-vitl14",
        "model.safetensors (huggingface.co/openai/clip-vit-large-patch14)",
        _HUB.format("32bd64288804d66eefd0ccbe215aa642df71cc41"),
    ),
    "c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801": Published(
        "clip",
        "clip-vitl14-336",
        "pytorch_model.bin (huggingface.co/openai/clip-vit-large-patch14-336)",
        _HUB.format("ce19dc912ca5cd21c8a653c79e251e808ccabcd1"),
    ),
}


@dataclass(frozen=True)
class Identity:
    """What a weight file is.

    Args:
        sha256: of the file, 64 hexadecimal digits.
        published: its entry, or None for a file that the user vouched for.
    """

    sha256: str
    published: Published | None


def identify(path: Path | str, kind: str, vouched: str | None = None) -> Identity:
    """The identity of a weight file, before anything of it is read as weights.

    Args:
        path: the file.
        kind: inception, dinov2 or clip.
        vouched: at least 16 leading digits of the file's SHA-256, given by the user.

    Raises:
        InputError: if the file is missing, another network's, unknown and not vouched for, or not what was vouched for.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}; give the path of the {kind} weights")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if vouched is not None:
        vouched = vouched.lower()
        if len(vouched) < DIGITS or set(vouched) - set("0123456789abcdef"):
            raise InputError(f"sha256={vouched}: give at least {DIGITS} hexadecimal digits of the file's SHA-256")
        if not sha256.startswith(vouched):
            raise InputError(f"{path} has the SHA-256 {sha256}, not {vouched}: it is another file, or damaged")
    published = PUBLISHED.get(sha256)
    if published is not None and published.kind != kind:
        raise InputError(f"{path} is {published.file}, not {kind} weights; write {published.kind}:{path}")
    if published is None and vouched is None:
        known = "; ".join(entry.file for entry in PUBLISHED.values() if entry.kind == kind)
        raise InputError(
            f"{path} has the SHA-256 {sha256}, which is none of the known {kind} files ({known}). If you trust it, "
            f"vouch for it: {kind}:{path}#sha256={sha256[:DIGITS]}; its distances then cannot be compared with "
            "published ones"
        )
    return Identity(sha256, published)
