"""What the user calls: verbs over DataFrames, the panel, the accessor."""
