"""Figures on the screen."""

from devices.demo.figures import Figures


class Shown(Figures):
    """Figures that are printed as soon as they are known."""

    def add(self, name: str, value: float | None, unit: str = "") -> bool:
        ok = super().add(name, value, unit)
        row = next(row for row in self.rows() if row["name"] == name)
        print(line_of(row), flush=True)
        return ok


def line_of(row: dict[str, object]) -> str:
    """One figure for a person."""
    value = row["value"]
    shown = f"{value:,.5g}" if isinstance(value, int | float) else "missing"
    mark = "ok " if row["ok"] else "RED"
    return f"{mark} {row['name']:36} {shown:>12} {row['bar']:>12}  {row['unit']}"
