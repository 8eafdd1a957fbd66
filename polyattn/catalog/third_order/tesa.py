"""Tensor-based self-attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.errors import SpecError

FACTS = Facts(
    title="Tensor element self-attention",
    source="Babiloni et al., TESA: Tensor Element Self-Attention via Matricization, 2020",
    year=2020,
    sizes={"H": 3, "W": 2, "C": 4, "R": 2},
    reach={"H": "all", "W": "all"},
    equivariant=("H", "W"),
)


def tesa(softmax: bool = False, mean: bool = False) -> Spec:
    """Return TESA: a non-local block on each of the three matricisations of X, and their weighted sum.

    Source: Babiloni et al., TESA: Tensor Element Self-Attention via Matricization, 2020; Poly-NL, section 4.2.

    The first term compares positions (HW x HW, `nl` with a low rank R), the second rows with each other (H x H, summed
    over columns and channels), the third columns (W x W). Prefer it where rows and columns carry meaning as wholes
    and the quadratic cost of the first term is affordable; regrouped, that term is linear in HW as `nl` is.

    Args:
        softmax: normalise each position's, row's and column's similarities; not a polynomial, and the first term's
            cost is then quadratic in HW.
        mean: means instead of the sums over positions, rows and columns, so that each term is divided by HW: the
            dot-product form of Wang et al., Non-local Neural Networks, 2018, which does not grow with the map.

    Raises:
        SpecError: two normalisations.
    """
    if softmax and mean:
        raise SpecError("TESA has softmax or means, not both")
    values = """
        x[H,W,C]; where r : R
        query1[i,j,r] = x[i,j,d]*wq1[d,r]; key1[k,l,r] = x[k,l,f]*wk1[f,r]; value1[k,l,b] = x[k,l,h]*wv1[h,b]
        query2[i,v,r] = x[i,v,d]*wq2[d,r]; key2[k,v,r] = x[k,v,f]*wk2[f,r]; value2[k,j,b] = x[k,j,h]*wv2[h,b]
        query3[u,j,r] = x[u,j,d]*wq3[d,r]; key3[u,l,r] = x[u,l,f]*wk3[f,r]; value3[i,l,b] = x[i,l,h]*wv3[h,b]
    """
    if softmax:
        return Spec(f"""{values}
            positions[i,j,k,l] = softmax[k,l](query1[i,j,r]*key1[k,l,r])
            rows[i,k] = softmax[k](query2[i,v,r]*key2[k,v,r])
            columns[j,l] = softmax[l](query3[u,j,r]*key3[u,l,r])
            y[i,j,b] = alpha1 * positions[i,j,k,l]*value1[k,l,b]
                     + alpha2 * rows[i,k]*value2[k,j,b]
                     + alpha3 * columns[j,l]*value3[i,l,b]
        """)
    # Each term is divided by HW: rows are compared over W columns and summed over H rows.
    both, along, across = ("1/H/W * ", "1/W * ", "1/H * ") if mean else ("", "", "")
    return Spec(f"""{values}
        rows[i,k] = {along}query2[i,v,r]*key2[k,v,r]
        columns[j,l] = {across}query3[u,j,r]*key3[u,l,r]
        y[i,j,b] = {both}alpha1 * query1[i,j,r]*key1[k,l,r] * value1[k,l,b]
                 + {across}alpha2 * rows[i,k]*value2[k,j,b]
                 + {along}alpha3 * columns[j,l]*value3[i,l,b]
    """)


def reference(x, **w):
    """A non-local block on each of three matricisations."""

    def attention(number, rows):
        def unfolded(weight):
            return np.moveaxis(x @ weight, rows, range(len(rows))).reshape(count, -1)

        count = int(np.prod([x.shape[r] for r in rows]))
        query, key, value = (unfolded(w[f"{name}{number}"]) for name in ("wq", "wk", "wv"))
        y = (query @ key.T @ value).reshape(np.moveaxis(x, rows, range(len(rows))).shape)
        return w[f"alpha{number}"] * np.moveaxis(y, range(len(rows)), rows)

    return attention(1, (0, 1)) + attention(2, (0,)) + attention(3, (1,))
