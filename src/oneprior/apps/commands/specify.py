"""`oneprior specify`: bounds set on real data, and the specification itself put to the test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from oneprior.apps import screen
from oneprior.apps.command import Command, Mistake, Outcome
from oneprior.apps.commands.evaluate import judge
from oneprior.apps.record import check_place, typed

if TYPE_CHECKING:
    from oneprior.evaluation.specifications import Outputs


@dataclass(frozen=True, kw_only=True)
class Specify(Command):
    """Set the `auto` bounds of a specification on one half of real data, try it on the other half, and on mutants.

    Args:
        spec: a YAML file; see docs/specifications.md.
        data: real events; files of one subject (--subject) and slices of one volume stay on one side.
        run: a trained run: the data are opened as its own were, with all that it can be told.
        out: the folder of specification.yaml (with numbers), report.html and result.json.
        classifier: a network that knows the classes (of `oneprior features`).
        segmenter: module:function, events in [-1, 1] -> class of each pixel.
        train: other real events that nothing may be a copy of (for the check `novel`).
        tail: share of real events that may lie beyond each bound before it is widened.
        widen: by which share of its distance from the median a bound is moved out.
        size: of the events; the data's own where not given.
        channels: grey or rgb, to turn the data into.
        key: the array of a .npz.
        label_key: the labels of a .npz.
        slices: cut volumes into pictures along this axis.
        subject: the subject in a file's name, a regular expression.
        most: the most real events that are read.
        sets: spoilt sets of each class of mutant and strength; 0 for none.
        set_size: outputs in each.
    """

    spec: tyro.conf.Positional[Path]
    data: Path
    run: Path | None = None
    out: Path
    classifier: Path | None = None
    segmenter: str | None = None
    train: Path | None = None
    tail: float = 0.002
    widen: float = 0.15
    size: str | None = None
    channels: Literal["grey", "rgb"] | None = None
    key: str | None = None
    label_key: str | None = None
    slices: Literal[0, 1, 2] | None = None
    subject: str | None = None
    most: int = 10_000
    sets: int = 30
    set_size: int = 100

    def execute(self) -> Outcome:
        import yaml

        from oneprior.apps.specified import figures, write_page
        from oneprior.core import replacing
        from oneprior.evaluation.specifications import TOGETHER
        from oneprior.tasks.specification import specify_iter

        if not 0 <= self.tail < 0.5 or self.widen < 0 or self.most < 4 or self.sets < 0 or self.set_size < 2:
            raise Mistake("--tail lies in [0, 0.5), --widen and --sets are not negative, --most >= 4, --set-size >= 2")
        check_place(self.out, self)
        states = specify_iter(
            self.spec,
            self._real(),
            tail=self.tail,
            widen=self.widen,
            sets=self.sets,
            size=self.set_size,
            seed=self.common.seed,
        )
        result = screen.track(states, "specify", lambda state: state.done, lambda state: state.doing)
        path = self.out / "specification.yaml"
        with replacing(path) as draft:
            draft.write_text(yaml.safe_dump(result.fitted.content, sort_keys=False, allow_unicode=True))
        page = write_page(result, self.out / "report.html", typed(), self.common.seed)
        single = [f for f in result.findings if f.specification.name != TOGETHER]
        met = sum(f.state == "met" for f in single)
        said = f"real data that the bounds were not set on meet {met} of {len(single)} specifications"
        if result.useless:
            said += f"\nuseless against these mutants: {', '.join(result.useless)}"
        return Outcome(self.out, (path, page), figures(result), said, whole=True)

    def _real(self) -> Outputs:
        import torch

        from oneprior.core import Rows
        from oneprior.data import open_dataset
        from oneprior.data.split import subjects
        from oneprior.evaluation import Classifier
        from oneprior.evaluation.specifications import Judges, Outputs

        told = {"size": self.size, "channels": self.channels, "key": self.key, "slices": self.slices}
        if self.run is not None:
            from oneprior.tasks.real import open_real
            from oneprior.training import load

            data = open_real(load(self.run), self.data, label_key=self.label_key, **told)
        else:
            data = open_dataset(self.data, label_key=self.label_key, **told)
        order = Rows(1, seed=self.common.seed, stream="real").bits(len(data))[0].argsort()[: self.most].sort().values
        read, network, train = data.batch(order), None, None
        if self.classifier is not None:
            network = Classifier.load(self.classifier)
        if self.train is not None:
            other = open_dataset(self.train, labels=False, **told)
            train = other.batch(torch.arange(min(len(other), 20_000))).x
        judges = Judges(
            classify=None if network is None else lambda x: torch.cat([network(part) for part in x.split(500)]),
            segment=judge(self.segmenter),
            train=train,
        )
        condition = dict(read.condition)
        names = next((spec.names for spec in data.conditions if spec.name == "label"), ())
        if network is not None and network.names and "label" in condition and tuple(names) != network.names:
            if strange := [name for name in names if name not in network.names]:
                raise Mistake(f"the classifier {network.name} does not know the class {strange[0]!r} of the data")
            condition["label"] = torch.tensor([network.names.index(n) for n in names])[condition["label"].long()]
        groups = subjects(data, self.subject) if self.subject else data.groups
        group = None if groups is None else groups[order]
        return Outputs(read.x, condition, order, data.units, group, judges, data.geometry.tokens)
