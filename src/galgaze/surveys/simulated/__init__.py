"""The simulated sky: galaxies and radio sources whose truth is known, drawn from (seed, source_id) alone."""
