"""Inference: evaluation by a protocol, prediction of images, videos and large images."""
