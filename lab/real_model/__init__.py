"""What real small models do, role by role."""
