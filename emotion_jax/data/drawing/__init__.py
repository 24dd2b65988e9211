"""The renderer of drawn faces: people and action units in, pictures out."""
