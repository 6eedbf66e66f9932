"""llamaduo: move a prompt from a service LLM to a small local LLM, and prove that it moved."""

__version__ = "0.1.0"
