"""Who may call, and the record of who did."""
