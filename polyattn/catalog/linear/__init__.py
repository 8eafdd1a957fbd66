"""Linear attention and its kin: contexts of keys and values that are summed before a query meets them."""
