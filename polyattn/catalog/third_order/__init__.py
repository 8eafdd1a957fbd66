"""Third-order layers: polynomials of degree 3 that keep the input's shape, and the Π-nets."""
