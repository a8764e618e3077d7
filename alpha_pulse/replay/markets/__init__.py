"""What an exchange has to show: recorded or made-up trades, and the candles of them."""
