"""What people see: panels, each a question and the SQL that answers it, and boards of them."""
