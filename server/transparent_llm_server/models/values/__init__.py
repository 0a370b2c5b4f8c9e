"""Values before they are computed: whole, in parts, as products."""
