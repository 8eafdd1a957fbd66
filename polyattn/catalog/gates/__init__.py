"""Gates: maps, channels or positions scaled by a function of the map."""
