"""From a cell to an admitted clip, or every reason why not."""
