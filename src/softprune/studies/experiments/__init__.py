"""What studies do with their runs; each file reads as the experiment does in its source."""
