"""What each command does from its recipe to its results: prepare, work, report."""
