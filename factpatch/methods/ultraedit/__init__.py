"""UltraEdit: a closed-form change from hidden states and their gradients, batch after batch."""
