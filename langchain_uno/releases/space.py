"""Where requests are compared: their embeddings, less what differs within a topic anyway.

Within-class covariance normalization with cosine scoring, from speaker verification (Hatch,
Kajarekar, Stolcke 2006; Dehak and others 2011). Embeddings of one topic differ most in a few
directions: names, length, urgency, wording. These count for less, and the angle seen from the
middle of all topics decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from langchain_uno.errors import InputError
from langchain_uno.models.protocols import FloatArray

__all__ = ["Space"]


@dataclass(frozen=True)
class Space:
    """A centre, (d,), and the directions that count for less, (d, r), each as long as it is damped.

    Raises:
        InputError: shapes do not fit, or a number is not finite.
    """

    centre: FloatArray
    damped: FloatArray

    def __post_init__(self) -> None:
        """Check shapes and numbers."""
        if self.centre.ndim != 1 or self.damped.ndim != 2 or len(self.damped) != len(self.centre):
            raise InputError(
                f"A centre of shape {self.centre.shape} and damped directions of shape "
                f"{self.damped.shape} do not fit: (d,) and (d, r) are wanted."
            )
        if not (np.isfinite(self.centre).all() and np.isfinite(self.damped).all()):
            raise InputError("The centre and the damped directions must be finite.")

    def see(self, vectors: ArrayLike) -> FloatArray:
        """Return vectors, (n, d), as unit vectors of this space, (n, d) float32.

        A vector at the centre has no direction and stays zero.
        """
        x = np.asarray(vectors, dtype=np.float32) - self.centre
        x -= (x @ self.damped) @ self.damped.T
        length = np.linalg.norm(x, axis=-1, keepdims=True)
        seen: FloatArray = np.divide(x, length, out=np.zeros_like(x), where=length > 0)
        return seen
