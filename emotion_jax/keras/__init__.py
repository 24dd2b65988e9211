"""Networks that Keras trained, read as plain arrays; Keras itself is never loaded."""
