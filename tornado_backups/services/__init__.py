"""What the server does, in terms of ports only: each module one use case, in the order its crash table demands."""
