"""Know OpenAI's ViT-L/14@336px again by a few rows of its token table: papers publish what they learned without it."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import Tensor

from anomalens.errors import WeightsError

BACKBONE = "ViT-L-14-336"
"""The weights that everything published was made with."""

WIDTH = 768
"""Width of its text tower."""

NORMS: Mapping[int, float] = MappingProxyType(
    {49406: 0.6507, 14115: 0.3992, 269: 0.3729, 49407: 1.0777, 13568: 0.3808, 0: 0.4113}
)
"""L2 norms of rows of its token table, by token id; read from the prompts that Crane's authors published."""

# Half precision in some copies of the weights moves a norm by less than this.
_CLOSE = 2e-4


def check_norms(ids: Sequence[int], rows: Tensor) -> None:
    """Raise WeightsError unless the rows [n, 768] of the tokens `ids` have the norms of those in OpenAI's table."""
    for token, row in zip(ids, rows, strict=True):
        norm = float(row.double().norm())
        if not math.isclose(norm, NORMS[token], abs_tol=_CLOSE):
            raise WeightsError(
                f"the embedding of token {token} has norm {norm:.4f}, that of {BACKBONE} has {NORMS[token]:.4f}; "
                "the prompts were made with another backbone or the file is damaged"
            )


def is_openai_table(table: Tensor) -> bool:
    """Return whether a token table [vocabulary, width] is that of OpenAI's ViT-L/14@336px, as far as can be told."""
    if table.shape[1] != WIDTH or len(table) <= max(NORMS):
        return False
    try:
        check_norms(list(NORMS), table[list(NORMS)].float().cpu())
    except WeightsError:
        return False
    return True
