"""Methods side by side: one run for each method and seed, and the tables of what each gives and costs."""
