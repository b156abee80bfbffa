"""What a conversion leaves out, counted by kind, with the file and the id of each."""

from collections import defaultdict

from satlisa.errors import SatlisaError

_MOST_LISTED = 1000  # of a kind; all are counted


class Problems:
    """What was left out or changed. Only what cannot make another label wrong is: the rest is an error.

    Args:
        strict: raise instead.
    """

    def __init__(self, strict: bool = False) -> None:
        self._strict = strict
        self._places: dict[str, list[str]] = defaultdict(list)
        self.counts: dict[str, int] = defaultdict(int)

    def add(self, kind: str, where: str, is_fault: bool = True) -> None:
        """Count one.

        Args:
            kind: what was done with what: "objects without area, left out".
            where: its file and id.
            is_fault: of the files, not a choice of ours.

        Raises:
            SatlisaError: where nothing may be left out (`--strict`).
        """
        if self._strict and is_fault:
            raise SatlisaError(f"{where}: one of the {kind}; mend it, or convert without --strict")
        self.counts[kind] += 1
        if len(self._places[kind]) < _MOST_LISTED:
            self._places[kind].append(where)

    def summary(self) -> list[str]:
        """A line for each kind, with its first three places."""
        return [
            f"{count:,} {kind}: {', '.join(self._places[kind][:3])}{', …' * (count > 3)}"
            for kind, count in self.counts.items()
        ]

    def listing(self) -> list[str]:
        """Every place, as Markdown."""
        lines = []
        for kind, count in self.counts.items():
            places = self._places[kind]
            lines += [f"## {count:,} {kind}", "", *(f"- {place}" for place in places)]
            lines += [f"- and {count - len(places):,} more"] * (count > len(places)) + [""]
        return lines
