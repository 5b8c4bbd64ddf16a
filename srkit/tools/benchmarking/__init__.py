"""What `srkit benchmark` measures, a kind a file: training, loading, evaluating, inference."""
