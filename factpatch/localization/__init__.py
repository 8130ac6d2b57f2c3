"""Where to write: places tried on a sample of the edits, few of them by a signal's advice or all in a grid."""
