"""What people see. Empty until the first board; the floor is reserved so that nothing grows around it."""
