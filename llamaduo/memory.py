"""What fits into memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
