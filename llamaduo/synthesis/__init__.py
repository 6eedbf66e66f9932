"""How the service LLM makes more data: one strategy a file, all of them asked by the same loop (`asking.py`)."""
