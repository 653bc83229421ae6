"""What proves the product and is not the product: never in the wheel."""
