"""Studies: matrices of runs that answer one question of a source each, with tables beside the published ones."""
