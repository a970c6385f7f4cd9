"""From cutouts to the Zarr store of network inputs."""
