"""The managers: history that is complete or says what is missing, and live data into a storage."""
