"""What a run reports: baselines, fresh seeds, conclusions, and answers to new rows."""
