"""What `train.py` is put together from: what a config means, a run's folder, its start and end."""
