"""The model card: what was learned from what, for people, and for the hub that the run may be pushed to.

Mitchell et al. 2019, "Model Cards for Model Reporting", arXiv:1810.03993; the front matter is the Hugging Face hub's.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from oneprior.training.folder import CARD, RunRecord, write_text
from oneprior.training.zoo import PREFIX, Entry


def hardware(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """Where it was trained: processor, device, versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "processor": name,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def write_card(folder: Path, record: RunRecord) -> None:
    """card.md from what config.json says."""
    write_text(folder / CARD, card(record))


def card(record: RunRecord) -> str:
    """The card as Markdown."""
    result, data = dict(record.result), dict(record.data)
    licence = data.get("licence") or "unknown"
    shape = " x ".join(map(str, record.event_shape))
    conditions = ", ".join(f"{c.name} ({c.kind})" for c in record.conditions) or "none"
    spent, state = "not trained here", "finished" if record.finished else "unfinished"
    if "images" in result:
        spent = f"{result['images']:,} images in {_duration(result['seconds'])}"
    seen = f"{data.get('trained_on', 'an unknown number of')} events trained on, {data.get('held_out', 0)} held out"
    owed = f"**Licence of the data**: {licence}. The weights come from these data; name it before you share them"
    if "from_licence" in data:
        owed += f". It started from {data['from']}, whose weights are under {data['from_licence']}"
    origin = []
    if "imported_from" in data:
        whose = f"{data['imported_from']} (its network {data['network']})"
        origin = [f"- **Weights**: imported from {whose}, SHA-256 `{data['sha256']}`"]
        owed = f"**Licence**: {licence}. It is that of {data['imported_from']}, and yours to know before you use it"
    parts = [
        "---",
        "library_name: oneprior",
        "license: other",
        f"license_name: {licence}",
        f"tags: [oneprior, {record.family}, generative-prior]",
        "---",
        "",
        f"# {record.family}: a prior p(x) over {shape}",
        "",
        "```python",
        "import oneprior",
        'x = oneprior.load("THIS FOLDER").prior().sample(oneprior.Rows(16, seed=0))',
        "```",
        "",
        *origin,
        f"- **Data**: {data.get('path', 'unknown')}, {seen}; units {_units(record)}",
        f"- {owed}",
        *(
            [f"- **Recipe**: {data['recipe']}, changed: {_line(data['changes'] or {'nothing': ''}).strip()}"]
            if "recipe" in data
            else []
        ),
        f"- **Conditions**: {conditions}",
        f"- **Training**: {spent}; seed {record.train.get('seed', 'unknown')}; {state}",
        f"- **Hardware**: {_line(result.get('hardware', {}))}",
        "",
        "## Figures",
        "",
        *_table("figure", {**result.get("losses", {}), "held-out loss": result.get("held_out")}),
        "",
        "Losses compare runs of one family on one data set, and nothing else.",
        "",
        "## Recipe",
        "",
        *_table("setting", {**record.train, **record.model, **result.get("recipe", {})}),
        "",
        "## Limits",
        "",
        "A prior knows what its data showed it. What it draws is no measurement, and what it restores is a belief: "
        "read the standard deviation with the mean, above all in medicine.",
        "",
    ]
    return "\n".join(parts)


def zoo_card(record: RunRecord, entry: Entry) -> str:
    """The card of an entry of the zoo, as Markdown: what `card` says, with what a stranger has to know.

    Args:
        record: what the entry's config.json says.
        entry: the facts of its data, what was measured, and how it is trained again.
    """
    facts, name, cost = entry.facts, f"{PREFIX}{entry.name}", entry.cost
    shape = " x ".join(map(str, record.event_shape))
    owed = f"{facts.licence}, that of the data"
    if facts.share_alike:
        owed += ": these weights and examples may be shared under the same licence only"
    seen = f"{record.data.get('trained_on', 'an unknown number of')} events trained on"
    spent = f"{cost['images']:,} images in {_duration(cost['seconds'])}" if cost.get("images") else "unknown"
    if cost.get("cpu_minutes"):
        spent += f" ({cost['cpu_minutes']:.3g} minutes of CPU in all)"
    measured = {figure.name: f"{figure}" + f" ({figure.source})" * bool(figure.source) for figure in entry.figures}
    measured["half precision moves a draw by"] = f"{entry.relative_error:.2g} of the draws' deviation"
    parts = [
        "---",
        "library_name: oneprior",
        f"license: {facts.licence.lower()}",
        f"tags: [oneprior, {record.family}, generative-prior]",
        "---",
        "",
        f"# {entry.name}: {facts.title}",
        "",
        f"A {record.family}: a prior p(x) over {shape}, units {_units(record)}.",
        "",
        "```python",
        "import oneprior",
        f'x = oneprior.load("{name}").prior().sample(oneprior.Rows(16, seed=0))',
        "```",
        "",
        f"- **Licence**: {owed}",
        f"- **Credit**: {facts.credit}",
        f"- **Data**: {facts.data}, {seen}, {record.data.get('held_out', 0)} held out; {facts.source}",
        f"- **Cite**: {facts.citation}",
        f"- **Changes to the data**: {facts.prepared}",
        f"- **What the data leave out**: {facts.leaves_out}",
        *([f"- **Examples**: {facts.examples}"] if facts.examples else []),
        f"- **Training**: {spent}; seed {entry.seed}",
        f"- **Hardware**: {_line(cost.get('hardware') or {})}",
        "",
        "Not for diagnosis. What it draws is no measurement of anybody, and what it restores is a belief: read the "
        "standard deviation with the mean.",
        "",
        "## Figures",
        "",
        *_table("figure", measured),
        "",
        "## Recipe",
        "",
        "```",
        f"oneprior zoo train {entry.name} --data PATH --out RUN",
        "```",
        "",
        *_table(f"oneprior train {entry.recipe.family}", entry.recipe.settings),
        "",
    ]
    return "\n".join(parts)


def _table(head: str, rows: Mapping[str, Any]) -> list[str]:
    shown = {name: value for name, value in rows.items() if value is not None}
    if not shown:
        return ["none"]
    return [f"| {head} | value |", "|---|---|"] + [f"| {name} | {_short(value)} |" for name, value in shown.items()]


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value).replace("|", "/")


def _line(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items()) or "unknown"


def _units(record: RunRecord) -> str:
    low, high = record.units.range
    return f"{low:g} .. {high:g} {record.units.unit}".strip()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
