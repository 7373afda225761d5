"""Functions of JAX as ONNX files. Its files import `onnx`, which is an extra."""
