"""What `predict.py` does: pictures, crops, films and the camera, from their source to rows."""
