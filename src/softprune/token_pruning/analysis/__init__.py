"""What a pruned encoder keeps: the linguistics of kept words."""
