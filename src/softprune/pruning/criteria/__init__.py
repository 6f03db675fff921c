"""The criteria by which a run prunes: a module each, named as in `CRITERIA`, with its equation and its `measure`."""
