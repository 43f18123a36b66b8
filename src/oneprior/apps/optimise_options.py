"""The options of `oneprior optimise` that say how candidates are found and what is sought, as its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from oneprior.apps.command import Mistake
from oneprior.core import InputError

if TYPE_CHECKING:
    from oneprior.tasks.campaign.objectives import Objective
    from oneprior.tasks.campaign.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Search:
    """How candidates are found.

    Args:
        trees: of the ensemble that stands for the score, at most; held-out events choose how many.
        depth: of a tree.
        leaf: scored events in a leaf, at least.
        members: ensembles, each learned without another part of the events, which may disagree.
        own_share: share of the ensemble's fit that what the campaign has scored itself has, at least.
        radius: codes that may differ from one of the best events; any number where not given.
        centres: of the best events, from which they may differ so.
        where: the part of an event whose codes may differ from those of one of the best events, such as 28:60,12:52 for
            these lines and columns of a picture; all of it where not given. A decoder blends a little beyond it.
        apart: codes in which candidates of a round differ, at least; a sixteenth of all by default.
        distance: weight of the codes that differ from the nearest known event: to explore.
        spread: weight of the members' disagreement: to explore.
        realism: weight of the codes' log-probability at their places: to stay near what the data are.
        unlikely: share of the data below whose probability a candidate is passed over; 0 to take all.
        splits: what the trees see of a code: its number, that behind what it is worth wherever it stands (shared), its
            vector in the codebook, or the better of these by held-out scores.
        seconds: limit of each exact search.
    """

    trees: int = 800
    depth: int = 2
    leaf: int = 20
    members: int = 1
    own_share: float = 0.0
    radius: int | None = None
    centres: int = 10
    where: str | None = None
    apart: int | None = None
    distance: float = 0.0
    spread: float = 0.0
    realism: float = 0.0
    unlikely: float = 0.001
    splits: Literal["better", "codes", "shared", "codebook"] = "better"
    seconds: float = 60.0

    def settings(self, **others: Any) -> Settings:
        """The settings of a campaign.

        Args:
            others: those that are no options of the search, by name.

        Raises:
            Mistake: for a value that cannot be; names the option.
        """
        from oneprior.inference.search.surrogate import Trees
        from oneprior.tasks.campaign.settings import Settings

        own = {name: getattr(self, name) for name in _DIRECT}
        try:
            return Settings(
                trees=Trees(most=self.trees, depth=self.depth, least=self.leaf, members=self.members),
                where=None if self.where is None else part(self.where),
                unlikely=self.unlikely or None,
                **own,
                **others,
            )
        except InputError as error:
            raise Mistake(_by_options(str(error))) from None


_DIRECT = ("own_share", "radius", "centres", "apart", "distance", "spread", "realism", "splits", "seconds")
"""Options that are settings as they are."""
KEPT = {
    "--trees": "trees.most",
    "--depth": "trees.depth",
    "--leaf": "trees.least",
    "--members": "trees.members",
    **{f"--{name.replace('_', '-')}": name for name in (*_DIRECT, "where", "unlikely", "seed")},
    "--spec": "rules",
    "--retrain-every": "retrain_every",
    "--rank-k": "rank_k",
    "--retrain-share": "share",
    "--retrain-rate": "rate",
}
"""Options that a campaign keeps from its beginning, and where its settings have them."""


def setting(settings: dict[str, Any], path: str) -> Any:
    """One of the settings as JSON has them, by its name, or its names with points between them."""
    for name in path.split("."):
        settings = settings[name]
    return settings


def told_as(path: str, value: Any) -> str:
    """A setting as its option has it."""
    if value is None:
        return "none"
    if path == "where":
        return ",".join(f"{first}:{end}" for first, end in value)
    return "its own" if path == "rules" else str(value)


def _by_options(words: str) -> str:
    """Words that begin with the name of a setting, or speak of one in quotes, with its option in place of it."""
    for flag, path in KEPT.items():
        name = path.rpartition(".")[2]
        words = flag + words.removeprefix(name) if words.startswith(f"{name} ") else words
        words = words.replace(f"`{name}`", flag)
    return words


def part(words: str) -> tuple[tuple[int, int], ...]:
    """FIRST:END of each axis, with commas between them."""
    try:
        ends = [tuple(map(int, axis.split(":"))) for axis in words.split(",")]
        return tuple((first, end) for first, end in ends)
    except ValueError:
        raise Mistake(f"--where {words}: needed FIRST:END for each axis, such as 28:60,12:52") from None


def objective(words: str) -> Objective:
    """NAME=maximise|minimise|NUMBER[:WEIGHT]."""
    from oneprior.tasks.campaign.objectives import Objective

    name, _, told = words.partition("=")
    goal, _, weight = told.partition(":")
    try:
        wanted = goal if goal in ("maximise", "minimise") else float(goal)
        share = float(weight) if weight else None
    except ValueError:
        raise Mistake(f"--objective {words}: needed NAME=maximise, NAME=minimise or NAME=NUMBER, and :WEIGHT") from None
    return Objective(name, wanted, share)
