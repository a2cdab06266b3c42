"""What was measured in one row, and what follows from it.

A figure stands beside those of the other clients of the same repetition, and ratios are taken within it. The
first of each process is left out as soon as there are three others: it paid for what client, server and file
system do only once.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from .peers.registry import OURS
from .row import FASTEST, Claim, Row
from .sample import Sample, quantity
from .statistics import Ratio, Spread, paired_ratio, spread

__all__ = ("Result", "missed", "verdict")

_ENOUGH_WARM = 3


@dataclass(eq=False)
class Result:
    """What was measured in one row against one server.

    Parameters
    ----------
    row : `~.row.Row`
        What.
    target : `str`
        Against which server.
    samples : `dict` [`str`, `list` [`~.sample.Sample`]]
        By peer, one for each repetition.
    observed : `dict` [`str`, `~.sample.Sample`]
        By peer of this package: a repetition in which each request was recorded; its times do not count.
    notes : `dict` [`str`, `list` [`str`]]
        By peer; why there are no figures, or what is to be known of them.
    load : `list` [`float`]
        The machine's load average before and after.
    """

    row: Row
    target: str
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    observed: dict[str, Sample] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    load: list[float] = field(default_factory=lambda: [os.getloadavg()[0]])

    @property
    def client(self) -> str:
        """Our own peer, whose figures stand over those of the others; empty if there is none."""
        return next((peer for peer in self.row.peers if peer in OURS), "")

    def timed(self, peer: str) -> list[Sample]:
        """Return the samples that count.

        Parameters
        ----------
        peer : `str`
            Whose.
        """
        samples = self.samples.get(peer, [])
        warm = [sample for sample in samples if not sample.first]
        return warm if len(warm) >= _ENOUGH_WARM else samples

    def pairs(self, name: str, client: str, peer: str) -> list[tuple[float, float]]:
        """Return a quantity of two peers for each repetition in which both did all their work.

        What failed at once would look like what was done fast.

        Parameters
        ----------
        name : `str`
            A key of `~.row.QUANTITIES`.
        client, peer : `str`
            The peers.
        """
        figures = [
            {
                sample.repetition: quantity(name, sample, self.row.work)
                for sample in self.timed(one)
                if not sample.errors
            }
            for one in (client, peer)
        ]
        pairs = ((value, figures[1].get(number)) for number, value in figures[0].items())
        return [(a, b) for a, b in pairs if a is not None and b is not None]

    def ratio(self, name: str, peer: str) -> Ratio | None:
        """Return our own figure over a peer's.

        Parameters
        ----------
        name : `str`
            A key of `~.row.QUANTITIES`.
        peer : `str`
            The peer.
        """
        return paired_ratio(self.pairs(name, self.client, peer)) if self.client else None

    def precision(self) -> float:
        """Return by which share the widest interval of the ratios of wall times reaches above its ratio.

        Returns
        -------
        precision : `float`
            Of the wall time itself if there is nobody to compare with; infinite as long as it is not known.
        """
        alone = self.client or next(iter(self.samples), "")
        others = [peer for peer in self.samples if peer not in OURS] if self.client else []
        if others:
            ratios = [self.ratio("wall", peer) for peer in others]
        else:
            ratios = [paired_ratio((sample.wall_seconds, 1.0) for sample in self.timed(alone))]
        return max((math.inf if ratio is None else ratio.half_width for ratio in ratios), default=math.inf)

    def values(self, claim: Claim) -> list[float]:
        """Return a claim's quantity for each repetition.

        Parameters
        ----------
        claim : `~.row.Claim`
            Which quantity, against which peer.

        Returns
        -------
        values : `list` [`float`]
            Empty if it was not measured.
        """
        if not claim.peer:
            samples = self.timed(claim.client)
            if claim.quantity == "retries" and claim.client in self.observed:
                samples = [self.observed[claim.client]]
            figures = [quantity(claim.quantity, sample, self.row.work) for sample in samples]
            return [] if None in figures else [value for value in figures if value is not None]
        peer = self._fastest() if claim.peer == FASTEST else claim.peer
        pairs = self.pairs(claim.quantity, claim.client, peer)
        if claim.quantity == "cpu_excess":
            return [a - b for a, b in pairs]
        return [a / b for a, b in pairs if b > 0]

    def _fastest(self) -> str:
        """Name of the client of others with the least median of wall time; empty if there is none."""
        medians = {
            peer: statistics.median(sample.wall_seconds for sample in self.timed(peer))
            for peer, samples in self.samples.items()
            if samples and peer not in OURS and not any(sample.errors for sample in samples)
        }
        return min(medians, key=medians.__getitem__, default="")


def verdict(result: Result) -> list[tuple[Claim, Spread, bool]]:
    """Return what became of each claim that could be judged.

    Parameters
    ----------
    result : `Result`
        Of one row and server.

    Returns
    -------
    verdict : `list` [`tuple`]
        Claim, median with range, and whether the median keeps to the limit.
    """
    judged = []
    for claim in result.row.claims:
        values = result.values(claim)
        if values:
            measured = spread(values)
            met = measured.median >= claim.limit if claim.at_least else measured.median <= claim.limit
            judged.append((claim, measured, met))
    return judged


def missed(rows: Sequence[Row], results: Sequence[Result], counted_only: bool) -> list[str]:
    """Return which figures are not as they shall be.

    Parameters
    ----------
    rows : `~collections.abc.Sequence` [`~.row.Row`]
        What was to be measured.
    results : `~collections.abc.Sequence` [`Result`]
        What was.
    counted_only : `bool`
        Whether those that depend on the machine's speed are left out.

    Returns
    -------
    missed : `list` [`str`]
        One line for each. What a server does not count cannot be missed; what was not measured at all is.
    """
    found = {(result.row.name, result.target): result for result in results}
    lines = []
    for row in rows:
        for target in row.targets:
            result = found.get((row.name, target))
            judged = {claim: (measured, met) for claim, measured, met in verdict(result)} if result else {}
            for claim in row.claims:
                others = () if claim.peer in ("", FASTEST) else (claim.peer,)
                if not {claim.client, *others} <= set(row.peers) or counted_only > claim.is_counted:
                    continue
                where = f"{row.name} on {target}: {claim.text}"
                wanted = f"{'at least' if claim.at_least else 'at most'} {claim.limit:g}"
                if claim in judged:
                    measured, met = judged[claim]
                    if not met:
                        lines.append(f"{where} is {measured.median:.4g}, and shall be {wanted}")
                elif result is None or not all(result.samples.get(one) for one in (claim.client, *others)):
                    lines.append(f"{where} was not measured, and shall be {wanted}")
    return lines
