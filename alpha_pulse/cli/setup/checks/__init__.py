"""What `alpha-pulse doctor` looks at, one file for each thing."""
