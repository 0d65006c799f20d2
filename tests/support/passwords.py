"""The passwords of the accounts in tests."""

PASSWORD = "seven green lanterns drift"
NEW_PASSWORD = "quiet rivers under old bridges"
