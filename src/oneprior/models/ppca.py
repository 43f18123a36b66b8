"""Probabilistic PCA and its mixtures, fitted in seconds: the baseline that every deep prior must beat.

One Gaussian is fitted in closed form from one pass over the data (Tipping and Bishop 1999, equations 7 and 8). K of
them are fitted by EM (their section 4): the E-step weighs each row's membership, the M-step is the closed form again on
the weighted moments. The start is k-means++ (Arthur and Vassilvitskii 2007) on a sample of the first pass, each row
drawing from its own stream.

A class condition gives every class its own K components: a row with a label belongs to its class's components, a row
without one to any. The law under a condition is the mixture with the other classes' weights at 0, and the "absent"
value is the mixture with all of them. Posteriors under linear measurements stay exact under every condition.

Where events were held out, the noise variance is the one under which *they* are likeliest (`PPCA.widen`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from oneprior.core import ConditionSpec, InputError, Rows
from oneprior.data.batch import Batch
from oneprior.models.base import ClosedFormModel
from oneprior.models.configs.ppca import PPCAConfig
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import GaussianMixturePrior
from oneprior.priors.moments import DENSE_LIMIT, HeldOutMoments
from oneprior.priors.pushforward import NoisePushforward

_FACTORS = tuple(2 ** (k / 8) for k in range(17))  # of the noise variance
_SAMPLE = 1 << 24  # numbers kept in memory for the start
_LLOYD = 10
_LEAST = 1e-8  # memberships below this add nothing to the moments


class PPCA(ClosedFormModel):
    """K Gaussians of low rank, of each class where there is a class condition.

    Args:
        config: `PPCAConfig`.
        event_shape: (channels, *space).
        conditions: at most one, of kind "class".

    Raises:
        InputError: for other conditions, or a rank that the event cannot have.
    """

    family = "ppca"
    config: PPCAConfig
    mean: Tensor
    basis: Tensor
    variances: Tensor
    noise_variance: Tensor
    rank: Tensor
    weight: Tensor

    def __init__(
        self,
        config: PPCAConfig,
        event_shape: torch.Size | tuple[int, ...],
        conditions: tuple[ConditionSpec, ...] = (),
    ) -> None:
        super().__init__(config, event_shape, conditions)
        if len(conditions) > 1 or any(c.kind != "class" for c in conditions):
            given = ", ".join(f"{c.name} ({c.kind})" for c in conditions)
            raise InputError(f"ppca takes one class condition at most, got {given}; choose one, or another family")
        size = self.event_shape.numel()
        if config.components < 1 or not 0 <= config.rank < size:
            raise InputError(
                f"ppca needs components >= 1 and rank 0 .. {size - 1}, got components={config.components}, "
                f"rank={config.rank}"
            )
        self.classes = conditions[0].classes if conditions else 1
        self._most = config.rank or min(size - 1, 512 if size <= DENSE_LIMIT else 128)
        total = config.components * self.classes
        self.register_buffer("mean", torch.zeros(total, *self.event_shape))
        self.register_buffer("basis", torch.zeros(total, size, self._most))
        self.register_buffer("variances", torch.zeros(total, self._most))
        self.register_buffer("noise_variance", torch.ones(total))
        self.register_buffer("rank", torch.zeros(total, dtype=torch.int64))
        self.register_buffer("weight", torch.full((total,), 1 / total))

    def prior(
        self, condition: Mapping[str, Tensor] | None = None, *, decoder_noise: bool = True
    ) -> LowRankGaussian | GaussianMixturePrior | NoisePushforward:
        """The law that was learned: one Gaussian, or a mixture.

        Args:
            condition: {name: labels}, int64 (n,) or (1,); None for the absent value.
            decoder_noise: False for x = mean + B sqrt(v) z, of a single Gaussian.

        Raises:
            InputError: for an unknown condition or label, or a mixture without its noise.
        """
        weights = self._weights(condition)
        alive = (weights > 0).any(0) if weights.dim() == 2 else weights > 0
        place = alive.nonzero().squeeze(1)
        components = [self._component(int(k)) for k in place]
        if len(components) > 1 and decoder_noise:
            return GaussianMixturePrior(components, weights[..., place])
        if len(components) > 1:
            raise InputError("a mixture has no law without its decoder noise: fit ppca with components=1")
        return components[0] if decoder_noise else components[0].noise_free()

    def trimmed(self) -> PPCA:
        """The same law without the empty directions that the fit had room for."""
        most = max(1, int(self.rank.max()))
        kept = PPCA(replace(self.config, rank=most), self.event_shape, self.conditions)
        state = self.state_dict()
        state |= {"basis": state["basis"][..., :most].clone(), "variances": state["variances"][..., :most].clone()}
        kept.load_state_dict(state)
        return kept.eval()

    @torch.no_grad()
    def widen(self, unseen: Iterable[Batch]) -> float:
        """Multiply the noise variances by the factor, 1 to 4, under which other events are likeliest; returns it.

        Maximum likelihood leaves too little variance where it has no directions: what the events of the fit leave over
        is less than what others do, and the less the more they are alike (slices of one head).
        """
        batches = [batch.x for batch in unseen]
        own = self.noise_variance.clone()

        def likelihood(factor: float) -> float:
            self.noise_variance.copy_(factor * own)
            law = self.prior()
            assert isinstance(law, LowRankGaussian | GaussianMixturePrior)
            return sum(float(law.log_prob(x).double().sum()) for x in batches)

        best = max(_FACTORS, key=likelihood) if batches else 1.0
        self.noise_variance.copy_(best * own)
        return best

    def _component(self, k: int) -> LowRankGaussian:
        rank = int(self.rank[k])
        return LowRankGaussian(
            self.mean[k], self.basis[k, :, :rank], self.variances[k, :rank], self.noise_variance[k]
        )  # fmt: skip

    def _weights(self, condition: Mapping[str, Tensor] | None) -> Tensor:
        """(K,), or (n, K) where the rows have different labels."""
        if not condition:
            return self.weight
        known = [c.name for c in self.conditions]
        unknown = [name for name in condition if name not in known]
        if unknown:
            raise InputError(f"this ppca run knows no condition {unknown[0]!r}; it has {known or 'none'}")
        labels = torch.as_tensor(condition[known[0]], device=self.weight.device).reshape(-1).long()
        if not bool(((labels >= 0) & (labels < self.classes)).all()):
            raise InputError(f"labels of {known[0]!r} lie in 0 .. {self.classes - 1}, got {labels.tolist()[:8]}")
        weights = self.weight * self._belongs(labels)
        if not bool((weights.sum(1) > 0).all()):
            raise InputError(f"some class of {known[0]!r} had no training row; it cannot be drawn")
        return weights[0] if bool((weights == weights[:1]).all()) else weights

    def _belongs(self, labels: Tensor) -> Tensor:
        """Which components a row may belong to: those of its class, or all for label -1; (n, K) bool."""
        owner = torch.arange(len(self.weight), device=labels.device) // self.config.components
        return (labels[:, None] == owner) | (labels[:, None] < 0)

    def _labels(self, batch: Batch) -> Tensor:
        """The class of each row, -1 where it is absent."""
        n, device = len(batch), batch.x.device
        if not self.conditions or self.conditions[0].name not in batch.condition:
            return torch.full((n,), -1 if self.conditions else 0, device=device)
        name = self.conditions[0].name
        labels = batch.condition[name].reshape(-1).long()
        present = batch.present.get(name)
        return labels if present is None else torch.where(present, labels, -1)

    def fit_passes(self, passes: Callable[[], Iterator[Batch]], rows: Rows) -> Iterator[dict[str, float]]:
        """EM until the likelihood stands still; one pass where memberships are certain.

        Yields:
            After each pass: {"pass", "log_prob" (mean nats a row, under the last pass's law), "rank", "components"}.
        """
        centres = None if self.config.components == 1 else self._start(passes(), rows)
        law: GaussianMixturePrior | None = None
        previous, ranks = -torch.inf, None
        for number in range(1, max(1, self.config.passes) + 1):
            moments, log_prob, certain = self._expect(passes(), law, centres)
            ranks = self._maximise(moments, ranks)
            metrics = {
                "pass": float(number),
                "rank": float(self.rank.double().mean()),
                "components": float((self.weight > 0).sum()),
            }
            yield metrics if law is None else {**metrics, "log_prob": log_prob}
            gain = (log_prob - previous) / self.event_shape.numel()
            if certain or (law is not None and gain < self.config.tolerance):
                return
            previous = previous if law is None else log_prob
            law = GaussianMixturePrior([self._component(k) for k in range(len(self.weight))], self.weight.clone())

    def _expect(
        self, batches: Iterator[Batch], law: GaussianMixturePrior | None, centres: Tensor | None
    ) -> tuple[list[HeldOutMoments], float, bool]:
        """One pass: weighted moments of each component, the mean log-likelihood under `law`, and whether memberships
        are certain (then no further pass changes them). Without a law rows belong to the nearest centre, and without
        centres to all components of their class alike."""
        size, total = self.event_shape.numel(), len(self.weight)
        moments = [HeldOutMoments(size, self.device, self._most) for _ in range(total)]
        log_prob, count, certain = 0.0, 0, True
        for batch in batches:
            allowed = self._belongs(self._labels(batch))
            certain = certain and bool((allowed.sum(1) == 1).all())
            if law is not None:
                joint = law.joint(batch.x).masked_fill(~allowed, -torch.inf)
                log_prob += float(joint.logsumexp(1).sum())
                member = joint.softmax(1)
            elif centres is not None:
                far = torch.cdist(batch.x.flatten(1), centres.flatten(1)).masked_fill(~allowed, torch.inf)
                member = torch.nn.functional.one_hot(far.argmin(1), total).double()
            else:
                member = allowed / allowed.sum(1, keepdim=True, dtype=torch.float64)
            if batch.weight is not None:
                member = member * batch.weight[:, None]
            count += len(batch)
            for k in range(total):
                (place,) = (member[:, k] > _LEAST).nonzero(as_tuple=True)
                moments[k].update(batch.x[place].flatten(1), member[place, k])
        if count < 2:
            raise InputError(f"ppca needs at least 2 rows to fit, got {count}")
        self._check_rows(moments)
        return moments, log_prob / count, certain

    def _check_rows(self, moments: list[HeldOutMoments]) -> None:
        """Raises where a class has rows, and none of its components enough of them."""
        parts = self.config.components
        for label in range(self.classes):
            mine = moments[label * parts : (label + 1) * parts]
            rows = sum(part.total for part in mine)
            if rows > 0 and not any(part.seen >= 2 and part.total >= 2 for part in mine):
                raise InputError(
                    f"class {label} has {rows:.0f} rows, too few for {parts} component(s) of its own, each of which "
                    "needs 2: give more rows, fewer components, or no labels"
                )

    def _maximise(self, moments: list[HeldOutMoments], ranks: list[int | None] | None) -> list[int | None]:
        """The closed form for each component; the ranks are chosen once, in the first pass, and then stay."""
        total = sum(m.total for m in moments)
        chosen: list[int | None] = []
        for k, part in enumerate(moments):
            share = part.total
            wanted = self.config.rank or (None if ranks is None else ranks[k])
            if part.seen < 2 or share < 2:
                chosen.append(wanted)
                self.weight[k] = 0.0  # a component that lost its rows stays as it was, without weight
                continue
            wanted = None if wanted is None else min(wanted, max(0, part.seen - 1))
            mean, basis, variances, noise = part.finish(wanted, self._most)
            q = basis.shape[1]
            self.mean[k] = mean.reshape(self.event_shape).to(self.mean)
            self.basis[k].zero_()
            self.basis[k, :, :q] = basis.to(self.basis)
            self.variances[k].zero_()
            self.variances[k, :q] = variances.to(self.variances)
            self.noise_variance[k], self.rank[k], self.weight[k] = noise, q, share / total
            chosen.append(q)
        return chosen

    def _start(self, batches: Iterator[Batch], rows: Rows) -> Tensor:
        """Centres by k-means++ and a few steps of Lloyd's, on as many first rows as memory allows; (K, *event)."""
        kept, labels, most = [], [], max(2 * len(self.weight), _SAMPLE // self.event_shape.numel())
        held = 0
        for batch in batches:
            kept.append(batch.x[: most - held])
            labels.append(self._labels(batch)[: most - held])
            held += len(kept[-1])
            if held >= most:
                break
        x, label = torch.cat(kept), torch.cat(labels)
        if len(x) < self.config.components:
            raise InputError(
                f"{self.config.components} components need at least as many rows of data, and there are {len(x)}: "
                "give fewer components"
            )
        centres = []
        for c in range(self.classes):
            own = x[label == c] if bool((label == c).any()) else x
            centres.append(_k_means(own.flatten(1), self.config.components, rows.stream(f"class {c}")))
        return torch.cat(centres).reshape(-1, *self.event_shape)


def _k_means(x: Tensor, k: int, rows: Rows) -> Tensor:
    """k centres of rows (m, d): k-means++ and a few steps of Lloyd's; (k, d)."""
    one = rows.take(slice(0, 1))
    centres = x[one.categorical(x.new_zeros(1, len(x)))]
    while len(centres) < k:
        nearest = torch.cdist(x, centres).square().amin(1)
        centres = torch.cat([centres, x[one.categorical(nearest.clamp_min(1e-12).log()[None])]])
    for _ in range(_LLOYD):
        member = torch.nn.functional.one_hot(torch.cdist(x, centres).argmin(1), k).to(x)
        count = member.sum(0)[:, None]
        centres = torch.where(count > 0, (member.T @ x) / count.clamp_min(1), centres)
    return centres
