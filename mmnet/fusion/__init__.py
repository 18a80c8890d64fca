"""Fusions: features of several modalities in, one vector a sample out."""

from mmnet.errors import UserError


def refuse_others(dims: dict[str, int], fusion: str, least: int, *named: str) -> None:
    """Raise UserError unless `dims` has at least so many modalities, and these if any are named."""
    if len(dims) < least or (named and set(dims) != set(named)):
        wanted = " and ".join(named) if named else f"at least {least} modalities"
        raise UserError(f"fusion: {fusion} joins {wanted}, and the encoders are: {', '.join(dims)}")
