"""The standalone proxy under uvicorn."""
