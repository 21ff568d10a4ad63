"""Other engines that Sparing is measured against."""
