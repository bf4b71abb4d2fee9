"""How the tables write what several of them show."""

TESTED = "ndcg@10"
SIGNIFICANT = 0.05


def p_cell(p_value: float | None) -> str:
    """Three digits, bold when significant; nothing for the row that the others are tested against."""
    if p_value is None:
        return ""
    return f"**{p_value:.3f}**" if p_value < SIGNIFICANT else f"{p_value:.3f}"
