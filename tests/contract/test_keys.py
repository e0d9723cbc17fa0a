"""Every key of the YAML is read by a run: a key that nothing reads fails this test."""

from __future__ import annotations

from typing import get_args

import pytest

from yeast_get import config
from yeast_get.config import Section, Settings


def all_keys(model=Settings) -> set[tuple[str, str]]:
    keys = set()
    for name, field in model.model_fields.items():
        parts = [field.annotation, *get_args(field.annotation)]
        sections = [p for p in parts if isinstance(p, type) and issubclass(p, Section)]
        for section in sections:
            keys |= all_keys(section)
        keys.add((model.__name__, name))
    return keys


@pytest.mark.usefixtures("blank_pictures")
def test_every_key_is_read_by_some_run(train, evaluate, table, tmp_path, monkeypatch):
    read: set[tuple[str, str]] = set()
    plain = Section.__getattribute__

    def recording(self, name):
        for owner in type(self).__mro__:
            if name in getattr(owner, "__annotations__", {}):
                read.add((type(self).__name__, name))
        return plain(self, name)

    monkeypatch.setattr(config, "_contradictions", lambda settings: iter(()))
    monkeypatch.setattr(Section, "__getattribute__", recording)
    table["group"] = table["medium"] + table["temperature"].astype(str)
    table["strain"] = "BY4741"
    table["target"] = table["target"].astype(object)
    table.loc[5, "target"] = "lost"
    path = tmp_path / "t.csv"
    table.to_csv(path, index=False)
    common = (
        "data.on_bad_row=skip",
        "data.description_columns=[group]",
        "conditions.extra.strain={kind: category}",
    )
    train(
        path, *common, "split.by=column", "split.column=group", "split.test=[SC30.0]",
        "logging.tensorboard=true", "logging.log_every_n_steps=1", "task.interpret=true",
        "model.region_identity.enabled=true", output="a",
    )  # fmt: skip
    film = ("model.fusion.kind=film", "model.region_identity.enabled=true")
    run = train(path, *common, *film, "augmentation.motif_noise=0.1", output="b")
    evaluate(run, path, "--set", "task.save_embeddings=true")
    window = ("data.regions_per_window=8", "training.warmup_epochs=0", "training.max_epochs=1")
    table.to_excel(tmp_path / "t.xlsx", index=False)
    pretraining = (*common, *window, "task.stage=pretrain")
    pretrained = train(tmp_path / "t.xlsx", *pretraining, output="p") / "pretrained.pth"
    train(path, *common, f"finetune.checkpoint={pretrained}", "lora.enabled=true", output="l")
    missing = all_keys() - read
    assert not missing, f"nothing reads {sorted(missing)}"
