"""History in the pipeline: what is stored, what is missing, and jobs that bring it."""
