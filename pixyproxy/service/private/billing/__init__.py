"""What pictures cost: prices, budgets and usage."""
