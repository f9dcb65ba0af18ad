"""Hold what `gainlens.test` returns: a measurement and the verdicts on it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from gainlens import figures
from gainlens.core.names import CLAIM_FIGURE
from gainlens.core.table import Table
from gainlens.records.claims import ClaimVerdict
from gainlens.report.claims import claim_table, claims_answer, reasons_table, resolved_table
from gainlens.runs.measurement import Measurement


@dataclass(frozen=True)
class ClaimTest(Measurement):
    """Hold a measurement and what it says of some claims."""

    verdicts: tuple[ClaimVerdict, ...] = ()

    @property
    def answer(self) -> str:
        """Return the outcome of every claim, in one line."""
        return claims_answer(self.verdicts)

    @property
    def shown_tables(self) -> list[Table]:
        """Return the tables that the terminal shows."""
        tables = [claim_table(self.verdicts)]
        return tables if len(self.verdicts) > 3 else [*tables, reasons_table(self.verdicts)]

    @property
    def further_tables(self) -> list[Table]:
        """Return the tables that the page shows before those of every measurement."""
        tables = [claim_table(self.verdicts), reasons_table(self.verdicts)]
        resolved = any(verdict.resolved for verdict in self.verdicts)
        return [*tables, resolved_table(self.verdicts)] if resolved else tables

    @property
    def badges(self) -> list[tuple[str, str]]:
        """Return every claim with its outcome, as the page's badges say them."""
        return [(verdict.claim, verdict.outcome) for verdict in self.verdicts]

    def drawings(self) -> dict[str, Callable[[], Any]]:
        """Return every figure by name, a claim's own first."""
        own = {
            f"{CLAIM_FIGURE}{one.claim}".replace(".", "-"): partial(figures.claim_interval, one)
            for one in self.verdicts
        }
        return own | super().drawings()

    @property
    def document(self) -> dict[str, Any]:
        """Return `verdict` of one claim, or `claims` of several, for result.json."""
        found = [asdict(verdict) for verdict in self.verdicts]
        return {"experiment": "gainlens test"} | (
            {"verdict": found[0]} if len(found) == 1 else {"claims": found}
        )
