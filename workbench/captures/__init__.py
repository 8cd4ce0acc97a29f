"""What `wb.capture` is made of: the plan, the forwards, blocks for the store, and the thread that writes them."""
