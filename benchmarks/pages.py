"""The pages of real results in docs/results, made by the program: evaluations, a comparison and a calibration.

Fashion-MNIST and brain slices, with the example specifications. The pages are written by the same code as those of
`oneprior evaluate`, `compare` and `calibrate`; only the conditions of the brain slices are handed over in Python.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.harness import ROOT, Figure, Options, fashion, feature_network, record
from benchmarks.segmenter import segmenter
from benchmarks.sets import as_condition, brains
from benchmarks.train import trained
from oneprior.apps import calibrated, compared, evaluated
from oneprior.core import AffineMap, Rows
from oneprior.evaluation import Features, own_features, train_self_supervised
from oneprior.evaluation.features import Classifier
from oneprior.evaluation.specifications import Judges, Outputs, Suite, fit_bounds, kill_rates
from oneprior.tasks.calibration import calibrate_iter
from oneprior.tasks.evaluation import evaluate
from oneprior.tasks.real import Real, independent
from oneprior.training import load

_FEW = {"steps": 12}
_FAMILIES = ("gan", "vae", "vqvae", "diffusion", "ldm", "ppca")


def run(options: Options) -> None:
    """Every page."""
    folder = options.runs / "quick" / "pages" if options.quick else ROOT / "docs/results"
    figures = _fashion(options, folder) | _brain(options, folder)
    record("pages", figures, options, claim="Figures of the pages in docs/results.")


def _fashion(options: Options, folder: Path) -> dict[str, Figure]:
    data, n = fashion(options), 60 if options.quick else 1000
    network = feature_network(options, data)
    judge = _shuffled(len(data.test))
    real = Real(data.test[judge[:5000]], {}, None)
    told = Real(real.x, {"label": data.test_labels[judge[:5000]]}, None)
    train = Real(data.train[:10_000], {"label": data.labels[:10_000]}, None)
    results = []
    for name in _FAMILIES[:2] if options.quick else _FAMILIES:
        few = _FEW if name in ("diffusion", "ldm") else {}
        scored = 4 if name == "diffusion" else 16
        results.append(
            evaluate(
                load(trained(name, options)),
                real,
                n=n,
                train=train,
                features=own_features(network),
                likelihoods=0 if options.quick else scored,
                options=few,
            )
        )
    words = "python -m benchmarks pages"
    names = [result.run.path.name for result in results]
    compared.write_page(results, names, folder / "fashion-mnist-families.html", words)
    apart = data.test[judge[5000:]]  # bounds are set on these, and tried on the others
    judges = Judges(classify=_logits(network), train=train.x)
    suite, kills = _specified(
        options,
        "fashion-mnist",
        _outputs(apart, {"label": data.test_labels[judge[5000:]]}, None, judges),
        _outputs(told.x, dict(told.condition), None, judges),
        0.15,
    )
    result = evaluate(
        load(trained("fashion-labelled", options)),
        told,
        n=n,
        train=train,
        classifier=network,
        suite=suite,
        score_classifier=20 if options.quick else 600,
    )
    evaluated.write_page(result, folder / "fashion-mnist.html", words, kills)
    rows = {
        f"fashion_{r.run.path.name}_frechet": Figure(r.rows[0].value, note=r.rows[0].name) for r in results if r.rows
    }
    met = sum(f.state == "met" for f in result.findings)
    return rows | {"fashion_specifications_met": Figure(met, note=f"of {len(result.findings)}, by the labelled gan")}


def _brain(options: Options, folder: Path) -> dict[str, Figure]:
    data, network = brains(options), segmenter(options)
    n = 24 if options.quick else 300
    held_out, training = data.held_out, data.train

    def segment(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([(network(part) > 0).long() for part in x.split(500)])

    held_out, training = (part.take(_shuffled(len(part.x))) for part in (held_out, training))
    real = Real(held_out.x, {"ventricle": as_condition(held_out.ventricle).float()}, held_out.subject)
    train = Real(training.x, {"ventricle": as_condition(training.ventricle).float()}, training.subject)
    some = training.subject % 2 == 0  # bounds are set on these subjects, the others stand for training data
    fit = training.take(some.nonzero()[:, 0])
    suite, kills = _specified(
        options,
        "brain-slices",
        _outputs(
            fit.x,
            {"ventricle": as_condition(fit.ventricle).float()},
            fit.subject,
            Judges(segment=segment, train=training.x[~some]),
        ),
        _outputs(held_out.x, dict(real.condition), held_out.subject, Judges(segment=segment, train=training.x)),
        0.6,
    )
    run = load(trained("brain", options))
    result = evaluate(
        run,
        real,
        n=n,
        train=train,
        features=_brain_features(options, training.x),
        segmenter=segment,
        suite=suite,
        likelihoods=0,
        options=_FEW,
    )
    evaluated.write_page(result, folder / "brain-slices.html", "python -m benchmarks pages", kills)
    figures = {
        "brain_frechet": Figure(result.rows[0].value, note=result.rows[0].name),
        "brain_specifications_met": Figure(
            sum(f.state == "met" for f in result.findings), note=f"of {len(result.findings)}, by the diffusion"
        ),
    }
    middle = independent(real, 8 if options.quick else 35)
    varies = training.x.double().std(0, keepdim=True) > 0.04
    prior = load(trained("brain-ppca", options))
    (study,) = deque(
        calibrate_iter(prior, middle, ["downsample:4"], "5%", samples=99, told=False, region=varies), maxlen=1
    )
    title = f"{prior.family}: brain slices"
    calibrated.write_page(study, folder / "calibration-brain-ppca.html", title, "python -m benchmarks pages", 0)
    coverage = study.calibration.coverage[-1]
    figures["brain_ppca_coverage"] = Figure(coverage.value, coverage.standard_error, note="of 90 % intervals")
    figures["brain_ppca_crps"] = Figure(study.calibration.crps.value, study.calibration.crps.standard_error)
    figures["brain_ppca_flagged"] = Figure(
        float(study.calibration.verdict.flagged), note=study.calibration.verdict.sentence
    )
    return figures


def _specified(options: Options, name: str, fit: Outputs, test: Outputs, widen: float) -> tuple[Suite, Any]:
    """The example with its bounds set on real events, and what it kills of mutants of others."""
    content = yaml.safe_load((ROOT / "examples/specifications" / f"{name}.yaml").read_text())
    with torch.no_grad():
        suite = fit_bounds(content, fit, widen=widen).suite
        sets, size = (2, 50) if options.quick else (10, 100)
        return suite, kill_rates(suite, test, Rows(1, seed=1), sets=sets, size=size)


def _shuffled(n: int) -> torch.Tensor:
    return Rows(1, seed=5).bits(n)[0].argsort()


def _outputs(x: torch.Tensor, told: dict[str, torch.Tensor], group: torch.Tensor | None, judges: Judges) -> Outputs:
    return Outputs(x, told, units=AffineMap.from_range(0, 255), group=group, judges=judges)


def _logits(network: Classifier) -> Any:
    return lambda x: torch.cat([network(part) for part in x.split(500)])


def _brain_features(options: Options, x: torch.Tensor) -> Features:
    """Self-supervised features of the training slices, trained once."""
    path = options.runs / "features" / ("brain-quick.safetensors" if options.quick else "brain.safetensors")
    if not path.exists():
        network = train_self_supervised(
            x, Rows(64, seed=0), 10 if options.quick else 300, width=16, label="brain-slices"
        )
        network.save(path)
    return own_features(path)
