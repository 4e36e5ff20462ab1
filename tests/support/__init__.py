"""What tests share: servers that they start, programs that they need."""
