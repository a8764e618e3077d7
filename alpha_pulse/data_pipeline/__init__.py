"""The library face: storage, fetchers and managers of market data."""
