"""All that talks to a service LLM: calls, the journal of paid replies, budget, prompts, strict reading."""
