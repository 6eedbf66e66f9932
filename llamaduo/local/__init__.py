"""The local model: loading it and its adapter, its memory, and answers by it, here or by a vLLM server."""
