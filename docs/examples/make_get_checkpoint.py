"""Write a small file that looks like a published GET checkpoint, with random weights.

It has the key names and the company of version 1 (`blocks.*`, `fc_norm.*`, `head.*`, an optimizer,
a namespace of arguments), and a list of the names of its features beside it, so that the commands
of docs/get_checkpoints.md can be tried without the published files. Its predictions mean nothing.

    python docs/examples/make_get_checkpoint.py FILE.pth
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from yeast_get.model.get_backbone import GETRegionFinetune

MOTIF_CLUSTERS = 30
PUBLISHED_NAMES = (
    ("encoder.blocks.", "blocks."),
    ("encoder.norm.", "fc_norm."),
    ("region_embed.embed.", "region_embed.proj."),
    ("head_exp.head.", "head."),
)


def published_name(name: str) -> str:
    """The name of a tensor in version 1."""
    for ours, theirs in PUBLISHED_NAMES:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def main(path: Path) -> None:
    """Write the checkpoint, and `FILE.names.txt` with the names of its motif clusters."""
    torch.manual_seed(0)
    model = GETRegionFinetune(MOTIF_CLUSTERS + 1, 128, 2, 2, output_dim=2)
    weights = {published_name(name): value for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters())
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "model": weights,
            "optimizer": optimizer.state_dict(),
            "epoch": 99,
            "args": argparse.Namespace(model="get_finetune_motif", lr=1e-3),
        },
        path,
    )
    names = [f"human_cluster_{i + 1}" for i in range(MOTIF_CLUSTERS)]
    path.with_suffix(".names.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
