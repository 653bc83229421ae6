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

from langchain_uno.models.embedders import unit_rows
from langchain_uno.models.protocols import FloatArray


@dataclass(frozen=True)
class Space:
    """A centre, (d,), and directions that count for less, (d, r), each as long as it is damped."""

    centre: FloatArray
    damped: FloatArray

    def see(self, vectors: ArrayLike) -> FloatArray:
        """Return vectors, (n, d), as unit vectors of this space, (n, d) float32.

        A vector at the centre has no direction and stays zero.
        """
        x = np.asarray(vectors, dtype=np.float32) - self.centre
        x -= (x @ self.damped) @ self.damped.T
        return unit_rows(x)
