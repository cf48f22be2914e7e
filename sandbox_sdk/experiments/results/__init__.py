"""What runs gave: results, tables, exports, rates and comparisons."""
